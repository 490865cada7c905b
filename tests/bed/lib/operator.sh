# Credence itself. The chart is installed in the cluster; operator and edge run as processes, with
# the ServiceAccounts, the RBAC and the arguments of the chart.

NAMESPACE=credence-system

# Sets OPERATOR to the program that the bed runs.
choose_operator() {
    PROFILE=${CREDENCE_PROFILE:-dev}
    OPERATOR=${CREDENCE_BIN:-$PROJECT/target/${PROFILE/#dev/debug}/credence}
    [ -z "${CREDENCE_BIN:-}" ] || [ -x "$OPERATOR" ] || fail "CREDENCE_BIN=$OPERATOR is not a program"
}

build_minutes() { [ "$PROFILE" = dev ] && echo 3.5 || echo 7; }

begin_operator() {
    [ -z "${CREDENCE_BIN:-}" ] || return 0
    command -v cargo >/dev/null || missing_language cargo
    mkdir -p "$PROJECT/target"
    in_background "building the operator ($PROFILE)" "$PROJECT/target/bed-build.log" \
        cargo build --locked --manifest-path "$PROJECT/Cargo.toml" --target-dir "$PROJECT/target" \
        --profile "$PROFILE" --bin credence
}

render_chart() { # INTO
    KUBE_VERSION=$KUBERNETES_VERSION NAMESPACE=$NAMESPACE "$PROJECT/charts/render" \
        --values "$BED_HOME/values.yaml" ${CREDENCE_VALUES:+--values "$CREDENCE_VALUES"} "$1"
}

# The same install as without Helm: kubectl applies one rendered file.
install_chart() {
    step "installing the chart" "$DIR/logs/chart.log"
    render_chart "$DIR/chart.yaml" >"$LOG" 2>&1
    kube apply --server-side --filename "$DIR/chart.yaml" >>"$LOG" 2>&1
    credence_crds | xargs "$KUBECTL" --kubeconfig "$DIR/kubeconfig" wait --for condition=Established --timeout 60s >/dev/null
}

apply() { kube apply --server-side --filename - >/dev/null; }

credence_crds() { kube get customresourcedefinitions --output name | grep '\.credence\.dev$'; }

# A kubeconfig with the rights of one ServiceAccount.
make_kubeconfig() { # FILE SERVICEACCOUNT NAMESPACE
    local token
    token=$(kube create token "$2" --namespace "$3" --duration 720h)
    kube config view --raw --minify --flatten --output json |
        jq --arg token "$token" '.users[0].user = {token: $token}' >"$1"
    chmod 600 "$1"
}

# Reads the arguments and the environment variables of a Deployment.
read_container() { # DEPLOYMENT NAMESPACE
    local container
    container=$(kube get deployment "$1" --namespace "$2" --output json | jq '.spec.template.spec.containers[0]')
    mapfile -t arguments < <(jq --raw-output '.args[]?' <<<"$container")
    mapfile -t environment < <(jq --raw-output '.env[]? | select(.value) | "\(.name)=\(.value)"' <<<"$container")
}

start_operator() {
    local arguments environment
    step "starting the operator" "$DIR/logs/operator.log"
    make_kubeconfig "$DIR/operator.kubeconfig" credence "$NAMESPACE"
    read_container credence "$NAMESPACE"
    # A copy, so that a later build does not affect the running bed. start_part has no OPERATOR and
    # starts the existing copy.
    [ -z "${OPERATOR:-}" ] || install -m 755 "$OPERATOR" "$DIR/bin/credence"
    launch operator env "${environment[@]}" \
        KUBECONFIG="$DIR/operator.kubeconfig" POD_NAMESPACE="$NAMESPACE" POD_NAME="bed-$(cksum <<<"$DIR" | cut -d" " -f1)" \
        "$DIR/bin/credence" "${arguments[@]}" --listen "127.0.0.1:$(port operator)"
    wait_until 60 operator curl --fail --silent "http://127.0.0.1:$(port operator)/readyz"
}

# Stores the delivery history of the edge. Nothing is kept on disk.
start_redis() {
    step "starting Redis" "$DIR/logs/redis.log"
    launch redis redis-server --port "$(port redis)" --bind 127.0.0.1 --save '' --appendonly no --dir "$DIR"
    wait_until 30 redis redis-cli -p "$(port redis)" ping
}

# The edge has a namespace and a ServiceAccount of its own.
EDGE_NAMESPACE=credence-edge

start_edge() {
    local arguments environment
    step "starting the edge" "$DIR/logs/edge.log"
    apply <"$BED_HOME/manifests/edge.yaml"
    kube wait --for condition=Ready --timeout 60s serviceidentity/edge --namespace "$EDGE_NAMESPACE" >/dev/null
    make_kubeconfig "$DIR/edge.kubeconfig" credence-edge "$EDGE_NAMESPACE"
    read_container credence-edge "$EDGE_NAMESPACE"
    launch edge env "${environment[@]}" KUBECONFIG="$DIR/edge.kubeconfig" POD_NAME="bed-edge" \
        CREDENCE_REDIS_URL="redis://127.0.0.1:$(port redis)/0" \
        "$DIR/bin/credence" "${arguments[@]}" --listen "127.0.0.1:$(port edge)" \
        --listen-metrics "127.0.0.1:$(port edge-metrics)" --audit-log "$DIR/logs/edge-audit.log"
    wait_until 60 edge curl --fail --silent "http://127.0.0.1:$(port edge-metrics)/readyz"
}

# The token issuer has a namespace and a ServiceAccount of its own as well. What callers are shown comes from another authority, as
# that of a host on the Internet would: the name localhost belongs to the identity of the edge.
TOKENS_NAMESPACE=credence-tokens

start_tokens() {
    local arguments environment
    step "starting the token issuer" "$DIR/logs/tokens.log"
    apply <"$BED_HOME/manifests/tokens.yaml"
    kube create secret tls tokens-serving --namespace "$TOKENS_NAMESPACE" --cert "$DIR/pki/tokens.crt" --key "$DIR/pki/tokens.key" \
        --dry-run=client --output yaml | apply
    kube wait --for condition=Ready --timeout 60s serviceidentity/tokens --namespace "$TOKENS_NAMESPACE" >/dev/null
    make_kubeconfig "$DIR/tokens.kubeconfig" credence-tokens "$TOKENS_NAMESPACE"
    read_container credence-tokens "$TOKENS_NAMESPACE"
    launch tokens env "${environment[@]}" KUBECONFIG="$DIR/tokens.kubeconfig" POD_NAME="bed-tokens" \
        "$DIR/bin/credence" "${arguments[@]}" --listen "127.0.0.1:$(port tokens)" \
        --listen-metrics "127.0.0.1:$(port tokens-metrics)" --audit-log "$DIR/logs/tokens-audit.log"
    wait_until 60 tokens curl --fail --silent "http://127.0.0.1:$(port tokens-metrics)/readyz"
}

make_trust_domain() {
    step "creating the TrustDomain demo" "$DIR/logs/operator.log"
    sed "s/TOKENS_PORT/$(port tokens)/" "$BED_HOME/manifests/trust-domain.yaml" | apply
    kube wait --for condition=Ready --timeout 60s trustdomain/demo >/dev/null
    kube get configmap demo-trust-bundle --namespace "$NAMESPACE" --output 'jsonpath={.data.ca\.crt}' >"$DIR/pki/demo.crt"
    authority tokens-ca
    certificate tokens-ca tokens /CN=localhost DNS:localhost
    cat "$DIR/pki/tokens-ca.crt" >>"$DIR/pki/demo.crt"
}

connect_broker() {
    step "creating the BrokerConnection kafka" "$DIR/logs/operator.log"
    kube create secret generic kafka-admin --namespace "$NAMESPACE" --type kubernetes.io/tls \
        --from-file tls.crt="$DIR/pki/credence-admin.crt" --from-file tls.key="$DIR/pki/credence-admin.key" \
        --from-file ca.crt="$DIR/pki/kafka-ca.crt" --dry-run=client --output yaml | apply
    sed "s/KAFKA_BOOTSTRAP/127.0.0.1:$(port kafka)/" "$BED_HOME/manifests/broker-connection.yaml" | apply
    kube wait --for condition=Ready --timeout 60s brokerconnection/kafka >/dev/null
}
