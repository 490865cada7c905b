# The example, applied as anybody would apply it.

show_quickstart() {
    heading "The quickstart (examples/quickstart)"
    kafka-topics --bootstrap-server "$KAFKA_BOOTSTRAP" --command-config "$KAFKA_ADMIN_CONFIG" \
        --create --if-not-exists --topic "$TOPIC" --partitions 1 >"$WORK/topics.log" 2>&1 ||
        wrong "Kafka did not make the topic $TOPIC" "$WORK/topics.log"
    kubectl apply --server-side --filename "$EXAMPLE" >"$WORK/apply.log" 2>&1 ||
        wrong "the example was not accepted" "$WORK/apply.log"
    sed 's/^/  /' "$WORK/apply.log"
    all_ready
    say "all of it is Ready"
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
    wrong "not everything became Ready" "$WORK/ready.log"
}
