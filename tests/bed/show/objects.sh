# The objects as kubectl shows them.

show_objects() {
    heading "6. kubectl get credence --all-namespaces"
    kubectl get credence --all-namespaces
    heading "kubectl describe serviceidentity orders --namespace shop"
    kubectl describe serviceidentity orders --namespace shop
}
