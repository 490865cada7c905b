# Applies the example as any user would.

show_quickstart() {
    heading "Applying examples/quickstart: two trust domains, four services, one topic"
    kafka-topics --bootstrap-server "$KAFKA_BOOTSTRAP" --command-config "$KAFKA_ADMIN_CONFIG" \
        --create --if-not-exists --topic "$TOPIC" --partitions 1 >"$WORK/topics.log" 2>&1 ||
        wrong "the topic $TOPIC could not be created" "$WORK/topics.log"
    kubectl apply --server-side --filename "$EXAMPLE" >"$WORK/apply.log" 2>&1 ||
        wrong "the API server rejected the example" "$WORK/apply.log"
    sed 's/^/  /' "$WORK/apply.log"
    all_ready
    say "all objects are Ready"
}

all_ready() {
    local namespace
    : >"$WORK/ready.log"
    kubectl wait trustdomain/demo trustdomain/partner brokerconnection/kafka \
        --for condition=Ready --timeout 120s >>"$WORK/ready.log" 2>&1 || not_ready
    for namespace in shop billing partner; do
        kubectl wait serviceidentities,topicpolicies,rotationpolicies --all --namespace "$namespace" \
            --for condition=Ready --timeout 120s >>"$WORK/ready.log" 2>&1 || not_ready
    done
}

not_ready() {
    kubectl get credence --all-namespaces >&2
    wrong "not all objects became Ready" "$WORK/ready.log"
}
