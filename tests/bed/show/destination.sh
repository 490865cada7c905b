# 5. An outgoing webhook: the service authenticates with its certificate, and the edge signs.

show_destination() {
    heading "5. orders sends a webhook: the gateway authenticates orders, signs, and connects to one host only"
    local receiver log=$WORK/receiver.log taken
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj "/CN=localhost" \
        -addext "subjectAltName=DNS:localhost" -addext "basicConstraints=critical,CA:FALSE" -keyout "$WORK/receiver.key" -out "$WORK/receiver.crt" 2>/dev/null
    : >"$log"
    "$SIGNERS/bin/python3" "$BED_HOME/show/receiver.py" "$WORK/receiver.crt" "$WORK/receiver.key" >"$log" 2>&1 &
    receiver=$!
    # shellcheck disable=SC2064 # the pid is expanded now
    trap "kill $receiver 2>/dev/null || true" EXIT
    until [ -s "$log" ]; do sleep 0.1; done
    kubectl create --dry-run=client --output json --filename "$PROJECT/examples/webhook/destination.yaml" |
        jq --arg url "https://localhost:$(head -n1 "$log")/in" --rawfile authority "$WORK/receiver.crt" \
            '.spec.target += {url: $url, caBundle: $authority} | .spec.deadLetter.service.port = 1' | kubectl apply --filename - >/dev/null
    kubectl wait --for condition=Ready --timeout 60s webhookdestination/acme --namespace shop >/dev/null
    take shop orders-mtls orders
    take shop inventory-mtls inventory
    post 200 orders "orders is authenticated by its certificate"
    taken=$(tail -n1 "$log")
    say "the receiver gets  $(jq --compact-output '.headers | {"webhook-id", "webhook-signature"}' <<<"$taken")"
    "$SIGNERS/bin/python3" "$PROJECT/tests/signers/sign.py" verify \
        "$(kubectl get webhookdestination acme --namespace shop --output 'jsonpath={.status.keys[0].publicKey}')" \
        "$(jq --compact-output .headers <<<"$taken")" <"$WORK/body" >"$WORK/verify.log" 2>&1 ||
        wrong "the signature does not verify" "$WORK/verify.log"
    say "                   and verifies the signature with the public key in the status"
    post 403 inventory "inventory is rejected"
    kubectl patch webhookdestination acme --namespace shop --type merge \
        --patch '{"spec": {"target": {"url": "https://10.0.0.1/in"}}}' >/dev/null
    kubectl wait --for condition=Ready --timeout 60s webhookdestination/acme --namespace shop >/dev/null
    post 502 orders "a private address as the destination is rejected"
    # Leaves the object as it is in the example, for those who look at it afterwards.
    kubectl apply --filename "$PROJECT/examples/webhook/destination.yaml" >/dev/null
    kubectl wait --for condition=Ready --timeout 60s webhookdestination/acme --namespace shop >/dev/null
    kill "$receiver"
}

post() { # ANSWER IDENTITY TEXT
    local answer
    answer=$(curl --silent --cacert "$EDGE_CA" --cert "$WORK/$2/tls.crt" --key "$WORK/$2/tls.key" --output /dev/null \
        --write-out '%{http_code}' --header "webhook-id: msg_$RANDOM$RANDOM" --data-binary @- "$EDGE_URL/shop/out/acme" <"$WORK/body")
    [ "$answer" = "$1" ] || wrong "$3: the edge answered $answer instead of $1" "$EDGE_AUDIT_LOG"
    say "$answer                $3"
}
