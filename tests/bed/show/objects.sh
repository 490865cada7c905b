# What a person sees.

show_objects() {
    heading "6. kubectl get credence -A"
    kubectl get credence --all-namespaces
    describe trustdomain demo
    describe brokerconnection kafka
    describe serviceidentity orders --namespace shop
    describe topicpolicy orders-placed --namespace shop
    describe rotationpolicy default --namespace shop
}

describe() { # KIND NAME OPTIONS...
    heading "kubectl describe $*"
    kubectl describe "$@"
}
