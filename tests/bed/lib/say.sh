# Progress and error messages, and long-running jobs.

STEP="starting"
LOG=""
JOB=""
JOBS=()
BACKGROUND=""
BACKGROUND_TEXT=""
BACKGROUND_LOG=""

# Each step is printed before it starts. On failure, the step and the end of its log are shown.
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

# Runs a long command with its output in a log, and prints every 15 seconds that it still runs.
with_progress() { # TEXT LOG COMMAND...
    step "$1" "$2"
    start_job "${@:2}"
    follow "$1" "$JOB"
}

# Every job has a process group of its own, so that an interrupted run can end all of it. It
# does not inherit the locks.
start_job() { # LOG COMMAND...
    local log=$1
    shift
    set -m
    "$@" >"$log" 2>&1 </dev/null 8>&- 9>&- &
    set +m
    JOB=$!
    JOBS+=("$JOB")
}

follow() { # TEXT PID
    local began=$SECONDS next=15
    while kill -0 "$2" 2>/dev/null; do
        sleep 0.2
        check_background
        if ((SECONDS - began >= next)); then
            note "$1 … $((SECONDS - began)) s"
            next=$((next + 15))
        fi
    done
    wait "$2"
}

# One job may run in the background while others are followed.
in_background() { # TEXT LOG COMMAND...
    step "$1, in the background"
    start_job "${@:2}"
    BACKGROUND=$JOB BACKGROUND_TEXT=$1 BACKGROUND_LOG=$2
}

# A failure in the background ends the run at once, and not only when its result is needed.
check_background() {
    [ -n "$BACKGROUND" ] && ! kill -0 "$BACKGROUND" 2>/dev/null || return 0
    wait_for_background
}

wait_for_background() {
    local job=$BACKGROUND text=$BACKGROUND_TEXT
    [ -n "$job" ] || return 0
    BACKGROUND=""
    if kill -0 "$job" 2>/dev/null; then
        step "$text" "$BACKGROUND_LOG"
        follow "$text" "$job"
    elif ! wait "$job"; then
        STEP=$text LOG=$BACKGROUND_LOG
        return 1
    fi
}

end_jobs() {
    local job
    for job in ${JOBS[@]+"${JOBS[@]}"}; do
        kill -- "-$job" 2>/dev/null || true
    done
}

# Repeats a command until it succeeds; gives up after SECONDS, or at once when the
# process it waits for has ended.
wait_until() { # SECONDS PROCESS COMMAND...
    local end=$((SECONDS + $1)) process=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ -z "$process" ] || alive "$process" || return 1
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}
