# The Kubernetes cluster of the bed: etcd, an API server and the controller manager, without
# nodes; or, with CLUSTER=current, the cluster of the current kubectl context.

KUBECTL=$KUBERNETES/kubectl

# kubectl caches by address, and a later bed may have the same one.
kube() { "$KUBECTL" --kubeconfig "$DIR/kubeconfig" --cache-dir "$DIR/cache" "$@"; }

make_cluster_pki() {
    step "creating the certificates of the cluster" "$DIR/logs/openssl.log"
    authority cluster-ca
    certificate cluster-ca kube-apiserver /CN=kube-apiserver \
        IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc
    certificate cluster-ca cluster-admin /O=system:masters/CN=credence-bed
    certificate cluster-ca kube-controller-manager /CN=system:kube-controller-manager
    pki genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out service-accounts.key
    pki pkey -in service-accounts.key -pubout -out service-accounts.pub
    kubeconfig cluster-admin >"$DIR/kubeconfig"
    kubeconfig kube-controller-manager >"$DIR/pki/kube-controller-manager.kubeconfig"
    chmod 600 "$DIR/kubeconfig"
}

kubeconfig() { # CERTIFICATE
    cat <<END
apiVersion: v1
kind: Config
current-context: credence-bed
contexts:
- name: credence-bed
  context: {cluster: credence-bed, user: $1}
clusters:
- name: credence-bed
  cluster:
    server: https://127.0.0.1:$(port apiserver)
    certificate-authority-data: $(base64 -w0 "$DIR/pki/cluster-ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$DIR/pki/$1.crt")
    client-key-data: $(base64 -w0 "$DIR/pki/$1.key")
END
}

# Nothing has to survive a crash of the machine, so etcd does not wait for the disk.
start_etcd() {
    local client peer
    client=http://127.0.0.1:$(port etcd)
    peer=http://127.0.0.1:$(port etcd-peer)
    step "starting etcd" "$DIR/logs/etcd.log"
    launch etcd "$ETCD/etcd" --name bed --data-dir "$DIR/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "bed=$peer"
    wait_until 30 etcd curl --fail --silent "$client/health"
}

start_apiserver() {
    step "starting kube-apiserver" "$DIR/logs/apiserver.log"
    # There are no nodes and no Services, so the API server need not publish its own address. The
    # request limits are those of a large cluster, because the tests make as many requests.
    launch apiserver "$KUBERNETES/kube-apiserver" \
        --etcd-servers "http://127.0.0.1:$(port etcd)" \
        --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --secure-port "$(port apiserver)" \
        --endpoint-reconciler-type none --service-cluster-ip-range 10.96.0.0/16 \
        --tls-cert-file "$DIR/pki/kube-apiserver.crt" --tls-private-key-file "$DIR/pki/kube-apiserver.key" \
        --client-ca-file "$DIR/pki/cluster-ca.crt" --anonymous-auth=false --authorization-mode RBAC \
        --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$DIR/pki/service-accounts.pub" \
        --service-account-signing-key-file "$DIR/pki/service-accounts.key" \
        --audit-policy-file "$BED_HOME/manifests/audit-policy.yaml" --audit-log-path "$DIR/logs/audit.log" \
        --max-requests-inflight 3000 --max-mutating-requests-inflight 1500
    wait_until 60 apiserver kube get --raw /readyz
}

start_controllers() {
    step "starting kube-controller-manager" "$DIR/logs/controllers.log"
    launch controllers "$KUBERNETES/kube-controller-manager" \
        --kubeconfig "$DIR/pki/kube-controller-manager.kubeconfig" \
        --root-ca-file "$DIR/pki/cluster-ca.crt" \
        --service-account-private-key-file "$DIR/pki/service-accounts.key" \
        --use-service-account-credentials --leader-elect=false --secure-port 0 \
        --kube-api-qps 500 --kube-api-burst 1000
    # It serves no health check here; a ServiceAccount that it created shows that it works.
    wait_until 60 controllers kube get serviceaccount default --namespace default
}

# The context is copied, so that switching it later does not affect the bed.
use_current_cluster() {
    step "using the cluster of the current kubectl context"
    "$KUBECTL" config view --raw --minify --flatten >"$DIR/kubeconfig"
    chmod 600 "$DIR/kubeconfig"
    kube get --raw /readyz >/dev/null
    ! kube get customresourcedefinitions --output name | grep -q 'credence\.dev$' ||
        fail "Credence is already installed in this cluster" "use another cluster, or remove Credence from this one first"
}

# Deletes the objects first, while the operator can still revoke what it granted for them, and
# then the chart. The broker is removed with the bed, so finalizers that wait for it are removed.
leave_current_cluster() {
    local kinds
    step "removing Credence from the cluster"
    kinds=$(credence_crds | sed 's,.*/,,' | paste -sd,)
    [ -z "$kinds" ] || kube delete "$kinds" --all --all-namespaces --timeout 60s >/dev/null || release_finalizers "$kinds"
    [ ! -s "$DIR/chart.yaml" ] || kube delete --ignore-not-found --filename "$DIR/chart.yaml" >/dev/null
}

release_finalizers() { # KINDS
    kube get "$1" --all-namespaces --output json |
        jq --compact-output '.items[] | .metadata |= (del(.managedFields) | .finalizers = [])' |
        kube replace --filename - >/dev/null
}
