# Starting and stopping the bed as a whole.

# In the order in which they start. They stop in the reverse order, because each uses those before it.
PARTS=(etcd apiserver controllers kafka redis operator edge tokens)
CLUSTER=${CLUSTER:-embedded}
[ "$(cat "$DIR/cluster" 2>/dev/null)" != current ] || CLUSTER=current
case $CLUSTER in
embedded) ;;
current) PARTS=(kafka redis operator edge tokens) KUBECTL=kubectl ;;
*) fail "CLUSTER=$CLUSTER is not known" "leave it out, or say CLUSTER=current" ;;
esac
[ ! -d "$DIR/nginx" ] || PARTS+=(target nginx)

up() { # WHO
    local parts
    CHANGED=""
    lock
    trap 'report_failure $?' EXIT
    trap 'exit 130' INT TERM
    if [ "$CLUSTER" = current ]; then
        command -v kubectl >/dev/null || fail "kubectl is not installed" "install it, or leave out CLUSTER=current"
        read -ra parts <<<"$(parts_for "$1" | sed 's/kubernetes etcd //')"
    else
        read -ra parts <<<"$(parts_for "$1")"
    fi
    choose_operator
    if [ -x "$OPERATOR" ]; then
        announce "${parts[@]}"
    else
        announce "${parts[@]}" -- "$(build_minutes)" "building the operator ($PROFILE)"
    fi
    begin_operator
    obtain "${parts[@]}"
    wait_for_background
    if complete && running etcd apiserver controllers kafka redis && same_chart; then
        link_tools
        if running operator edge tokens && cmp --silent "$OPERATOR" "$DIR/bin/credence"; then
            write_env
            echo "The bed is already running in $DIR."
            return
        fi
        CHANGED=yes
        stop tokens
        stop edge
        stop operator
        start_operator
        start_edge
        start_tokens
    else
        clear_away
        CHANGED=yes
        start_all
        [ "$1" != bench ] || start_comparison
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
    start_tokens
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
    link_tools
    plain_config
}

# promtool and glua are only linked if they were obtained for the tests.
link_tools() {
    local tool
    for tool in "$(command -v "$KUBECTL")" "$HELM/helm" "$PROMTOOL/promtool" "$GLUA/glua"; do
        [ ! -x "$tool" ] || ln -sfn "$tool" "$DIR/bin/"
    done
}

# How people and tests reach the bed.
write_env() {
    # Replaced as a whole: tests read it while others start and stop parts.
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
export NODE_SIGNERS='$NODE_SIGNERS'
export GO_SERVICE='$GO_SERVICE/service'
export JAVA_SERVICE='$JAVA_SERVICE/service.jar'
export JAVASCRIPT_SERVICE='$JAVASCRIPT_SERVICE/service.js'
export RUST_SERVICE='$RUST_SERVICE/service'
export PROVIDER='$PROVIDER'
export FEDERATION='$FEDERATION/federation'
export EDGE_URL='https://localhost:$(port edge)'
export EDGE_CA='$DIR/pki/demo.crt'
export EDGE_PID='$(pid_of edge)'
export TOKENS_PID='$(pid_of tokens)'
export REDIS_URL='redis://127.0.0.1:$(port redis)/0'
export EDGE_METRICS_URL='http://127.0.0.1:$(port edge-metrics)/metrics'
export EDGE_AUDIT_LOG='$DIR/logs/edge-audit.log'
export TOKENS_ISSUER='https://localhost:$(port tokens)'
export TOKENS_METRICS_URL='http://127.0.0.1:$(port tokens-metrics)/metrics'
export TOKENS_AUDIT_LOG='$DIR/logs/tokens-audit.log'
END
    [ ! -d "$DIR/nginx" ] || write_comparison_env >>"$DIR/env.new"
    [ "$CLUSTER" = current ] || echo "export ETCD_URL='http://127.0.0.1:$(port etcd)'" >>"$DIR/env.new"
    mv "$DIR/env.new" "$DIR/env"
}

down() {
    lock
    is_bed || { echo "No bed in $DIR." && return; }
    clear_away
    echo "The bed in $DIR is stopped and removed."
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
    complete || fail "no bed is running in $DIR" "start it with make up"
    [[ " ${PARTS[*]} " == *" $1 "* ]] || fail "the bed has no part $1" "it has ${PARTS[*]}"
}

# Whether all of these run; parts that this bed does not have are ignored.
running() { # PARTS...
    local part
    for part in "$@"; do
        [[ " ${PARTS[*]} " != *" $part "* ]] || alive "$part" || return 1
    done
}

same_chart() { render_chart "$DIR/chart.now" >/dev/null 2>&1 && cmp --silent "$DIR/chart.now" "$DIR/chart.yaml"; }

is_bed() { [ -d "$DIR/pids" ]; }

# A bed is complete when it has the file env, which is written last.
complete() { [ -f "$DIR/env" ]; }

# Removes the folder only if it is a bed.
clear_away() {
    is_bed || {
        [ -z "$(ls -A "$DIR" 2>/dev/null)" ] || fail "$DIR is not empty and is not a bed" "choose another folder"
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

# One command at a time for each bed. Other beds, and parts that are being obtained, have locks of their own.
lock() {
    mkdir -p "$STATE"
    exec 9>"$STATE/bed-$(cksum <<<"$DIR" | cut -d' ' -f1).lock"
    flock --nonblock 9 && return
    note "waiting for another command of the bed in $DIR"
    flock 9
}

report_failure() { # EXIT CODE
    end_jobs
    [ "$1" != 0 ] || return 0
    [ "$1" = 130 ] || show_log
    printf '\nThe bed did not start; the step that failed: %s.\n' "$STEP" >&2
    if [ -n "$CHANGED" ]; then
        stop_all
        printf 'All its processes were stopped. ' >&2
    elif is_bed; then
        printf 'The bed in %s was not changed. ' "$DIR" >&2
    fi
    printf 'Correct the cause and repeat the command; parts that are complete are kept.\n' >&2
}
