# Processes of the bed: started apart from the terminal, known by their pid, and
# stopped by it.

# When a process began, in ticks since boot; together with its pid it names one
# process for good, so that a pid that was used again is never taken for ours.
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
    [ "$(began "$pid")" = "$ticks" ]
}

pid_of() { cut -d' ' -f1 "$DIR/pids/$1"; }

# The lock's descriptor stays with us: a daemon that held it would lock the next run out.
launch() { # NAME COMMAND...
    local name=$1
    shift
    setsid "${CLOCK[@]}" "$@" >>"$DIR/logs/$name.log" 2>&1 </dev/null 9>&- &
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

# A free port below the range the kernel gives to outgoing connections. It stays the
# same for the life of the bed, so that a part can be stopped and started again.
port() { # NAME
    local port
    while ! grep -qs "^$1 " "$DIR/ports"; do
        port=$((20000 + RANDOM % 12000))
        ! grep -qs " $port\$" "$DIR/ports" || continue
        ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue
        echo "$1 $port" >>"$DIR/ports"
    done
    awk -v name="$1" '$1 == name { print $2 }' "$DIR/ports"
}
