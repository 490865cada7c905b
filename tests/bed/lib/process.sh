# Processes of the bed: detached from the terminal, and identified by their pid.

# When a process began, in ticks since boot. The pid and this time together identify one
# process, so that a pid that was reused by another program is never signalled.
began() { # PID
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # shellcheck disable=SC2086 # the fields after the name, which may hold spaces
    set -- ${stat##*) }
    [ "$1" != Z ] || return 1
    echo "${20}"
}

alive() { # NAME
    local pid ticks
    read -r pid ticks 2>/dev/null <"$DIR/pids/$1" || return 1
    # A program that could not be started has no time.
    [ -n "$ticks" ] && [ "$(began "$pid")" = "$ticks" ]
}

pid_of() { cut -d' ' -f1 "$DIR/pids/$1"; }

# A process of the bed must not inherit the lock: it would keep the next command waiting.
launch() { # NAME COMMAND...
    local name=$1
    shift
    setsid "${CLOCK[@]}" "$@" >>"$DIR/logs/$name.log" 2>&1 </dev/null 8>&- 9>&- &
    echo "$! $(began $!)" >"$DIR/pids/$name"
}

stop() { # NAME
    local name=$1 pid
    if alive "$name"; then
        pid=$(pid_of "$name")
        kill -TERM "$pid"
        for _ in $(seq 100); do
            alive "$name" || break
            sleep 0.1
        done
        ! alive "$name" || kill -KILL "$pid"
    fi
    rm -f "$DIR/pids/$name"
}

# A free port below the range that the kernel gives to outgoing connections. It stays the
# same for the life of the bed, so that a part can be stopped and started again.
port() { # NAME
    known_port "$1" && return
    mkdir -p "$STATE"
    (
        flock 8
        claim_port "$1"
    ) 8>"$STATE/ports.lock"
    known_port "$1"
}

known_port() { awk -v name="$1" '$1 == name { print $2; found = 1 } END { exit !found }' "$DIR/ports" 2>/dev/null; }

# A bed keeps its ports in its folder, and they are free when the folder is removed, however
# that happens. The folders of all beds are listed in one file.
claim_port() { # NAME
    local port folder taken
    ! known_port "$1" >/dev/null || return 0
    touch "$DIR/ports" "$STATE/beds"
    while read -r folder; do
        [ ! -f "$folder/ports" ] || echo "$folder"
    done <"$STATE/beds" >"$STATE/beds.new"
    grep -qxF "$DIR" "$STATE/beds.new" || echo "$DIR" >>"$STATE/beds.new"
    mv "$STATE/beds.new" "$STATE/beds"
    taken=$(while read -r folder; do cat "$folder/ports"; done <"$STATE/beds")
    while
        port=$((20000 + RANDOM % 12000))
        grep -q " $port\$" <<<"$taken" || (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null
    do :; done
    echo "$1 $port" >>"$DIR/ports"
}
