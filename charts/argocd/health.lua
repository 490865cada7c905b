-- The health of every kind of credence.dev, from its condition Ready.
-- Argo CD sets obj, and opens no library of Lua but the basic one and tables.

-- What passes by itself, once that which it waits for is there or gone. Any other reason, known
-- here or not, needs somebody.
local passing = {
  Blocked = true,
  BrokerNotReady = true,
  CleanupPending = true,
  InUse = true,
  NotProgrammed = true,
  RenewalPending = true,
  TrustDomainNotReady = true,
}

-- A field, or nil when it or what should hold it is missing.
local function field(holder, name)
  if type(holder) == "table" then
    return holder[name]
  end
end

local function health(status, condition)
  local reason, message = field(condition, "reason"), field(condition, "message")
  return { status = status, message = tostring(reason or "Ready") .. ": " .. tostring(message or "") }
end

local ready, observing
local conditions = field(field(obj, "status"), "conditions")
for _, condition in ipairs(type(conditions) == "table" and conditions or {}) do
  if field(condition, "type") == "Ready" then
    ready = condition
  elseif field(condition, "reason") == "ObserveOnly" then
    observing = condition
  end
end

local metadata = field(obj, "metadata")
-- Deletion begins a new generation: what was said before it is of no interest any more.
local current = ready ~= nil and field(ready, "observedGeneration") == field(metadata, "generation")
local status, reason = field(ready, "status"), field(ready, "reason")

if field(metadata, "deletionTimestamp") ~= nil then
  if current and status == "False" then
    return health("Progressing", ready)
  end
  return { status = "Progressing", message = "it is being deleted" }
elseif not current then
  return { status = "Progressing", message = "the operator has not seen this generation yet" }
elseif status == "True" then
  -- Only observing is what was asked for, so it is healthy; it should be seen all the same.
  return health("Healthy", observing or ready)
elseif status ~= "False" then
  return health("Progressing", ready)
elseif reason == "Suspended" then
  return health("Suspended", ready)
elseif passing[reason] then
  return health("Progressing", ready)
end
return health("Degraded", ready)
