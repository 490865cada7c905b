-- The requests that wrk sends: the heads are read from a file, one in a line, with tabs in place of line breaks; each line begins with
-- a number, which makes the body unique. Every thread of wrk takes lines of its own.

local threads = 0

function setup(thread)
  thread:set("thread", threads)
  threads = threads + 1
end

function init(arguments)
  local file, size, count = arguments[1], tonumber(arguments[2]), tonumber(arguments[3])
  padding = string.rep("0", size)
  heads, numbers, next_one = {}, {}, 0
  local line_number = 0
  for line in io.lines(file) do
    if line_number % count == thread then
      local number, head = string.match(line, "^(%d+) (.*)$")
      numbers[#numbers + 1] = number
      heads[#heads + 1] = string.gsub(head, "\t", "\r\n")
    end
    line_number = line_number + 1
  end
end

-- Once all are sent it begins anew, and the edge refuses what it gets again.
function request()
  next_one = next_one % #heads + 1
  local number = numbers[next_one]
  return heads[next_one] .. string.sub(padding, #number + 1) .. number
end

function done(summary)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  print(string.format("RESULT %d %d %d", summary.requests, failed, summary.duration))
end
