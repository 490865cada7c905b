# 3. Renews all certificates in shop by one field of one RotationPolicy.

show_rotation() {
    local before after
    heading "3. All certificates in shop are rotated through RotationPolicy shop/default"
    generations >"$WORK/generations.before"
    acls >"$WORK/acls.before"
    before=$(serials)
    kubectl patch rotationpolicy default --namespace shop --type merge \
        --patch "{\"spec\":{\"issuedBefore\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"}}" >/dev/null
    await_new_serials "$before"
    all_ready
    after=$(serials)
    paste -d' ' <(echo "$before") <(echo "$after") | while read -r name old _ new; do
        say "$(printf '%-18s serial %s -> %s' "$name" "${old: -12}" "${new: -12}")"
    done

    take shop orders-mtls orders-new
    take shop inventory-mtls inventory-new
    handshake orders inventory-new
    handshake orders-new inventory
    handshake orders-new inventory-new
    say "old and new certificates work together, in both directions"

    take shop orders.kafka orders-kafka-new
    ! cmp --silent "$WORK/orders-kafka/client.properties" "$WORK/orders-kafka-new/client.properties" ||
        wrong "the client.properties of orders did not change"
    publishes orders-kafka-new "published with the new certificate"
    publishes orders-kafka "published with the old certificate"
    say "orders can publish with the new and with the old client.properties"

    generations >"$WORK/generations.after"
    acls >"$WORK/acls.after"
    unchanged generations
    say "the generations of the $(wc -l <"$WORK/generations.after") other objects did not change"
    unchanged acls
    say "the $(grep -c principal= "$WORK/acls.after") ACLs in Kafka did not change"
}

generations() {
    kubectl get credence --all-namespaces --output json | jq --raw-output '.items[]
        | select(.kind != "RotationPolicy")
        | "\(.kind) \(.metadata.namespace // "-")/\(.metadata.name) \(.metadata.uid) \(.metadata.generation)"' | sort
}

acls() {
    kafka-acls --bootstrap-server "$KAFKA_BOOTSTRAP" --command-config "$KAFKA_ADMIN_CONFIG" --list 2>"$WORK/acls.log" |
        awk '/^Current ACLs/ { resource = $0 } /principal=/ { print resource $0 }' | sort
}

serials() {
    local name
    for name in orders inventory; do
        echo "$name $(kubectl get secret "$name-mtls" --namespace shop --output 'jsonpath={.data.tls\.crt}' |
            base64 -d | openssl x509 -noout -serial | cut -d= -f2)"
    done
}

await_new_serials() { # BEFORE
    local end=$((SECONDS + 120))
    while serials | grep -qxF "$1"; do
        ((SECONDS < end)) || wrong "not all certificates were renewed within two minutes"
        sleep 0.5
    done
}

unchanged() { # WHAT
    diff "$WORK/$1.before" "$WORK/$1.after" >"$WORK/$1.diff" || wrong "the rotation changed the $1" "$WORK/$1.diff"
}
