# What a person reads while the bed works, and when it fails.

STEP="starting"
LOG=""
JOB=""

# A step names itself before it begins, so that a failure can say where it happened,
# and with which log.
step() { # TEXT [LOG]
    STEP=$1
    LOG=${2:-}
    printf '  %s\n' "$STEP"
}

note() { printf '    %s\n' "$*"; }

fail() { # WHAT [NEXT STEP]
    printf '\nerror: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'next:  %s\n' "$2" >&2
    exit 1
}

# The end of the log of the step that failed.
show_log() {
    [ -s "${LOG:-}" ] || return 0
    printf '\nthe last lines of %s:\n' "$LOG" >&2
    tail -n 20 "$LOG" | sed 's/^/  | /' >&2
}

# Runs a long command with its output in a log and a sign of life every 15 seconds. It
# has a process group of its own, so that an interrupted run can end all of it.
with_progress() { # TEXT LOG COMMAND...
    local text=$1 log=$2 began=$SECONDS sign=15
    shift 2
    step "$text" "$log"
    set -m
    "$@" >"$log" 2>&1 </dev/null 9>&- &
    set +m
    JOB=$!
    while kill -0 "$JOB" 2>/dev/null; do
        sleep 0.2
        if ((SECONDS - began >= sign)); then
            note "$text … $((SECONDS - began)) s"
            sign=$((sign + 15))
        fi
    done
    wait "$JOB"
    JOB=""
}

# Repeats a command until it succeeds; gives up after SECONDS, or at once when the
# process it waits for is gone.
wait_until() { # SECONDS PROCESS COMMAND...
    local end=$((SECONDS + $1)) process=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ -z "$process" ] || alive "$process" || return 1
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}
