# A second, small bed that starts from a snapshot of another version of Credence: the store of its API server and the
# data of its broker, at the time at which they were copied. tests/faults/v0.2.0 is such a snapshot; its README says what
# is in it.

# The processes of such a bed see the time of the snapshot, whenever it is restored: otherwise its certificates would
# have expired, and a rotation that was in progress would be over. Processes written in Go are not affected; they do not
# look at these certificates.
CLOCK=()
[ ! -f "$DIR/clock.env" ] || mapfile -t CLOCK <"$DIR/clock.env"

# Stores the environment that makes a program see a time, as if the bed had been restored then.
set_clock() { # TIME
    local library
    need faketime
    library=$(find /usr/lib /usr/local/lib -name libfaketimeMT.so.1 -print -quit 2>/dev/null)
    [ -n "$library" ] || fail "libfaketimeMT.so.1 was not found" "install libfaketime (in Debian the package is faketime)"
    CLOCK=(env LD_PRELOAD="$library" FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_FORCE_MONOTONIC_FIX=0
        FAKETIME="$(printf '%+d' $(($(date --date "$1" +%s) - $(date +%s))))")
    printf '%s\n' "${CLOCK[@]}" >"$DIR/clock.env"
}

# Starts everything but Credence. The caller installs the chart, and starts the operator and the edge.
restore() { # FOLDER
    local snapshot=$1 name parts
    [ -f "$snapshot/bed.tar.xz" ] || fail "$snapshot holds no snapshot of a bed" "name a folder such as tests/faults/v0.2.0"
    CHANGED=""
    lock
    trap 'report_failure $?' EXIT
    trap 'exit 130' INT TERM
    read -ra parts <<<"$(parts_for bed)"
    choose_operator
    begin_operator
    obtain "${parts[@]}"
    wait_for_background
    clear_away
    CHANGED=yes
    make_folder
    install -m 755 "$OPERATOR" "$DIR/bin/credence"
    cp "$snapshot/ports" "$DIR/ports"
    for name in etcd etcd-peer apiserver redis operator edge edge-metrics; do port "$name" >/dev/null; done
    await_ports "$snapshot/ports"
    set_clock "$(cat "$snapshot/time")"
    tar --extract --xz --file "$snapshot/bed.tar.xz" --directory "$DIR"
    # Certificates that are good at the time of the snapshot and at the time of the machine.
    PKI_DAYS=36500 make_cluster_pki
    start_etcd
    start_apiserver
    kube get configmap demo-trust-bundle --namespace "$NAMESPACE" --output 'jsonpath={.data.ca\.crt}' >"$DIR/pki/demo.crt"
    make_kafka_home
    : >"$DIR/logs/kafka.log"
    start_kafka
    # Redis stores durations and no dates; its allocator does not work with libfaketime.
    (CLOCK=() && start_redis)
    redis-cli -p "$(port redis)" <"$snapshot/redis" >/dev/null
    # The operator and the edge do not run yet, so their pids are unknown.
    write_env 2>/dev/null
    echo "The bed is restored in $DIR; Credence does not run in it yet."
}

# The snapshot contains the addresses of its broker, so these ports cannot be chosen anew. A second bed of the same
# snapshot waits for the first.
await_ports() { # FILE
    local name port
    while read -r name port; do
        wait_until 300 "" is_free "$port" ||
            fail "port $port, which $name needs, is taken" "stop the program that listens there; the snapshot contains this port"
    done <"$1"
}

is_free() { ! (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Installs the chart of this version over the one in the snapshot.
upgrade() {
    complete || fail "no bed is running in $DIR" "restore one first"
    install_chart
}
