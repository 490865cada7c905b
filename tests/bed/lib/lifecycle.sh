# The order in which the bed comes up, and how it goes down again.

# Stopped from the right: whoever uses another part goes before it.
PARTS=(etcd apiserver controllers kafka redis operator edge)
CLUSTER=${CLUSTER:-embedded}
[ "$(cat "$DIR/cluster" 2>/dev/null)" != current ] || CLUSTER=current
case $CLUSTER in
embedded) ;;
current) PARTS=(kafka redis operator edge) ;;
*) fail "CLUSTER=$CLUSTER is not known" "leave it out, or say CLUSTER=current" ;;
esac

up() {
    lock
    trap 'report_failure $?' EXIT
    trap 'exit 130' INT TERM
    obtain_parts
    build_operator
    if complete && running etcd apiserver controllers kafka redis && same_chart; then
        if running operator edge && cmp --silent "$OPERATOR" "$DIR/bin/credence"; then
            echo "The bed is already running in $DIR."
            return
        fi
        stop edge
        stop operator
        start_operator
        start_edge
    else
        clear_away
        start_all
    fi
    write_env
    echo "The bed is running in $DIR."
}

start_all() {
    make_folder
    if [ "$CLUSTER" = current ]; then
        use_current_cluster
    else
        make_cluster_pki
        start_etcd
        start_apiserver
        start_controllers
    fi
    install_chart
    start_operator
    make_trust_domain
    start_redis
    start_edge
    make_kafka_pki
    make_kafka_home
    start_kafka
    let_credence_administer
    connect_broker
}

make_folder() {
    mkdir -p "$DIR"/{bin,logs,pids,pki}
    chmod 700 "$DIR/pki"
    echo "$CLUSTER" >"$DIR/cluster"
    ln -s "$KUBERNETES/kubectl" "$HELM/helm" "$PROMTOOL/promtool" "$GLUA/glua" "$DIR/bin/"
    plain_config
}

# The interface of the bed to people and tests.
write_env() {
    # Whole or not at all: tests read it while others start and stop parts.
    cat >"$DIR/env.new" <<END
export BED_DIR='$DIR'
export BED_BIN='$DIR/bin'
export KUBECONFIG='$DIR/kubeconfig'
export KAFKA_BOOTSTRAP='127.0.0.1:$(port kafka)'
export KAFKA_HOME='$DIR/kafka'
export KAFKA_ADMIN_CONFIG='$DIR/kafka/admin.properties'
export OPERATOR_PID='$(pid_of operator)'
export OPERATOR_METRICS_URL='http://127.0.0.1:$(port operator)/metrics'
export OPERATOR_KUBECONFIG='$DIR/operator.kubeconfig'
export SIGNERS='$SIGNERS'
export EDGE_URL='https://localhost:$(port edge)'
export EDGE_CA='$DIR/pki/demo.crt'
export EDGE_PID='$(pid_of edge)'
export REDIS_URL='redis://127.0.0.1:$(port redis)/0'
export EDGE_METRICS_URL='http://127.0.0.1:$(port edge-metrics)/metrics'
export EDGE_AUDIT_LOG='$DIR/logs/edge-audit.log'
END
    [ "$CLUSTER" = current ] || echo "export ETCD_URL='http://127.0.0.1:$(port etcd)'" >>"$DIR/env.new"
    mv "$DIR/env.new" "$DIR/env"
}

down() {
    lock
    is_bed || { echo "No bed in $DIR." && return; }
    clear_away
    echo "The bed is down."
}

status() {
    is_bed || { echo "No bed in $DIR." && return; }
    local part
    for part in "${PARTS[@]}"; do
        if alive "$part"; then
            printf '%-12s running, pid %s\n' "$part" "$(pid_of "$part")"
        else
            printf '%-12s stopped, see %s\n' "$part" "$DIR/logs/$part.log"
        fi
    done
}

start_part() { # PART
    lock
    known "$1"
    running "$1" || "start_$1"
    write_env
}

stop_part() { # PART
    lock
    known "$1"
    stop "$1"
}

known() { # PART
    complete || fail "no bed is up in $DIR" "start it: make up"
    [[ " ${PARTS[*]} " == *" $1 "* ]] || fail "the bed has no part $1" "it has ${PARTS[*]}"
}

# All of those that this bed has at all.
running() { # PARTS...
    local part
    for part in "$@"; do
        [[ " ${PARTS[*]} " != *" $part "* ]] || alive "$part" || return 1
    done
}

same_chart() { render_chart 2>/dev/null | cmp --silent - "$DIR/chart.yaml"; }

is_bed() { [ -d "$DIR/pids" ]; }

# Its last act in coming up is to write env.
complete() { [ -f "$DIR/env" ]; }

# Only a folder that is a bed is ever removed.
clear_away() {
    is_bed || {
        [ -z "$(ls -A "$DIR" 2>/dev/null)" ] || fail "$DIR holds something else than a bed" "choose another folder"
        return 0
    }
    [ "$CLUSTER" = embedded ] || leave_current_cluster
    stop_all
    rm -rf "$DIR"
}

stop_all() {
    local i
    for ((i = ${#PARTS[@]} - 1; i >= 0; i--)); do
        stop "${PARTS[i]}"
    done
}

# One run at a time over a cache: parts are made once, and no two beds choose one port.
lock() {
    mkdir -p "$CACHE"
    exec 9>"$CACHE/lock"
    flock --nonblock 9 && return
    note "waiting for another run of the bed"
    flock 9
}

report_failure() { # EXIT CODE
    [ -z "$JOB" ] || kill -- "-$JOB" 2>/dev/null || true
    [ "$1" != 0 ] || return 0
    [ "$1" = 130 ] || show_log
    printf '\nThe bed did not come up: it ended while %s.\n' "$STEP" >&2
    ! is_bed || stop_all
    printf 'Nothing is left running. Once the cause is mended, the same command starts afresh.\n' >&2
}
