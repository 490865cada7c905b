# 2. Kafka's own console tools, with the unchanged client.properties of a Secret.

show_publishing() {
    local message
    message="order $(date +%s%N)"
    heading "2. orders publishes to $TOPIC and ledger reads it; inventory has no grant and is denied"
    take shop orders.kafka orders-kafka
    take shop inventory.kafka inventory-kafka
    take billing ledger.kafka ledger-kafka
    publishes orders-kafka "$message"
    say "orders publishes   \"$message\""
    if produce inventory-kafka "not an order"; then
        wrong "inventory could publish without a grant" "$WORK/producer.log"
    fi
    grep -q TOPIC_AUTHORIZATION_FAILED "$WORK/producer.log" ||
        wrong "inventory failed for another reason than the missing grant" "$WORK/producer.log"
    say "inventory gets     $(grep -o TOPIC_AUTHORIZATION_FAILED "$WORK/producer.log" | head -n1)"
    reads ledger-kafka ledger "$message"
    say "ledger reads       \"$message\""
}

publishes() { # FOLDER MESSAGE
    produce "$1" "$2" || wrong "publishing as ${1%-kafka*} failed" "$WORK/producer.log"
}

produce() { # FOLDER MESSAGE
    echo "$2" | timeout 60 kafka-console-producer --bootstrap-server "$KAFKA_BOOTSTRAP" \
        --command-config "$WORK/$1/client.properties" --topic "$TOPIC" --sync >"$WORK/producer.log" 2>&1 &&
        ! grep -q ERROR "$WORK/producer.log"
}

# The consumer group continues at its offset, so messages of an earlier run may come first.
reads() { # FOLDER GROUP MESSAGE
    local consumer end=$((SECONDS + 60))
    kafka-console-consumer --bootstrap-server "$KAFKA_BOOTSTRAP" --command-config "$WORK/$1/client.properties" \
        --topic "$TOPIC" --group "$2" --from-beginning >"$WORK/consumed" 2>"$WORK/consumer.log" &
    consumer=$!
    until grep -qxF "$3" "$WORK/consumed"; do
        kill -0 "$consumer" 2>/dev/null || wrong "the consumer exited" "$WORK/consumer.log"
        ((SECONDS < end)) || { kill "$consumer" && wrong "the message did not arrive" "$WORK/consumer.log"; }
        sleep 0.2
    done
    kill "$consumer"
    wait "$consumer" 2>/dev/null || true
}
