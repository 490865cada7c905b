# 4. An incoming webhook, signed by the library that senders use.

show_webhooks() {
    heading "4. The gateway verifies webhooks, rejects replays and old ones, and delivers the others once"
    local target port first second log=$WORK/target.log
    printf '{"paid": 7}' >"$WORK/body"
    : >"$log"
    "$SIGNERS/bin/python3" "$BED_HOME/show/target.py" >"$log" 2>&1 &
    target=$!
    # shellcheck disable=SC2064 # the pid is expanded now
    trap "kill $target 2>/dev/null || true" EXIT
    until [ -s "$log" ]; do sleep 0.1; done
    port=$(head -n1 "$log")
    sed "s/port: 8080/port: $port/" "$PROJECT/examples/webhook/webhook.yaml" | kubectl apply --filename - >/dev/null
    kubectl wait --for condition=Ready --timeout 60s webhookendpoint/payments --namespace shop >/dev/null
    first=$(signing_key)
    sign "$first" "msg_$RANDOM$RANDOM" "$(date +%s)" >"$WORK/headers"
    deliver 200 "a signed delivery is accepted"
    say "the target gets    $(tail -n1 "$log" | cut -d' ' -f1,3-)"
    say "with an assertion  $(assertion "$(tail -n1 "$log" | cut -d' ' -f2)" <"$WORK/body")"
    deliver 409 "the same delivery is rejected the second time"
    sign "$first" "msg_$RANDOM$RANDOM" "$(($(date +%s) - 3600))" >"$WORK/headers"
    deliver 403 "a delivery from an hour ago is rejected"
    kubectl patch rotationpolicy webhooks --namespace shop --type merge \
        --patch "{\"spec\": {\"issuedBefore\": \"$(date -u -d '+1 second' +%Y-%m-%dT%H:%M:%SZ)\"}}" >/dev/null
    until second=$(signing_key) && [ "$second" != "$first" ]; do sleep 0.2; done
    for key in "$first" "$second"; do
        sign "$key" "msg_$RANDOM$RANDOM" "$(date +%s)" >"$WORK/headers"
        deliver 200 "after the rotation of the key, a delivery signed with the $([ "$key" = "$first" ] && echo old || echo new) key is accepted"
    done
    say "the audit log:"
    tail -n 5 "$EDGE_AUDIT_LOG" | jq --raw-output \
        '"    \(.time[11:19])  \(.result)  \(.reason)  \(.delivery // "-")  \(.key // "-")  \(.targetStatus // "-")"'
    kill "$target"
}

signing_key() {
    kubectl get secret payments-webhook-keys --namespace shop --output 'jsonpath={.data.signing-key}' | base64 -d
}

sign() { # KEY ID SECONDS
    "$SIGNERS/bin/python3" "$PROJECT/tests/signers/sign.py" standard-webhooks "$1" "$2" "$3" <"$WORK/body"
}

deliver() { # ANSWER TEXT
    local answer
    answer=$(curl --silent --cacert "$EDGE_CA" --output /dev/null --write-out '%{http_code}' \
        --header @"$WORK/headers" --data-binary @- "$EDGE_URL/shop/payments" <"$WORK/body")
    [ "$answer" = "$1" ] || wrong "$2: the edge answered $answer instead of $1" "$EDGE_AUDIT_LOG"
    say "$answer                $2"
}

assertion() { # TOKEN
    "$SIGNERS/bin/python3" "$PROJECT/examples/webhook/verify_assertion.py" "$EDGE_CA" \
        spiffe://demo.credence.example/ns/credence-edge/sa/credence-edge payments.shop.svc "$1" |
        jq --compact-output '{iss, aud, endpoint, jti}'
}
