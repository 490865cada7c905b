# 2. Kafka's own console tools, with the client.properties of a Secret as they are.

show_publishing() {
    local message="order $(date +%s%N)"
    heading "2. orders may publish to $TOPIC, inventory may not, and ledger reads it"
    take shop orders.kafka orders-kafka
    take shop inventory.kafka inventory-kafka
    take billing ledger.kafka ledger-kafka
    publishes orders-kafka "$message"
    say "orders publishes   \"$message\""
    if produce inventory-kafka "not an order"; then
        wrong "inventory could publish, without a grant" "$WORK/producer.log"
    fi
    grep -q TOPIC_AUTHORIZATION_FAILED "$WORK/producer.log" ||
        wrong "inventory failed, but not by being refused" "$WORK/producer.log"
    say "inventory is told  $(grep -o TOPIC_AUTHORIZATION_FAILED "$WORK/producer.log" | head -n1)"
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

# The group goes on where it was, so messages of an earlier run may come first.
reads() { # FOLDER GROUP MESSAGE
    local consumer end=$((SECONDS + 60))
    kafka-console-consumer --bootstrap-server "$KAFKA_BOOTSTRAP" --command-config "$WORK/$1/client.properties" \
        --topic "$TOPIC" --group "$2" --from-beginning >"$WORK/consumed" 2>"$WORK/consumer.log" &
    consumer=$!
    until grep -qxF "$3" "$WORK/consumed"; do
        kill -0 "$consumer" 2>/dev/null || wrong "the consumer ended" "$WORK/consumer.log"
        ((SECONDS < end)) || { kill "$consumer" && wrong "the message did not arrive" "$WORK/consumer.log"; }
        sleep 0.2
    done
    kill "$consumer"
    wait "$consumer" 2>/dev/null || true
}
