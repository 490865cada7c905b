# The broker: one Kafka node that accepts only mutual TLS, and authorizes only by ACLs.

kafka_tool() { # TOOL ARGUMENTS...
    local tool=$1
    shift
    "$DIR/kafka/bin/$tool" --bootstrap-server "127.0.0.1:$(port kafka)" --command-config "$DIR/kafka/admin.properties" "$@"
}

make_kafka_pki() {
    step "creating the certificates of Kafka" "$DIR/logs/openssl.log"
    authority kafka-ca
    certificate kafka-ca kafka /CN=bed-broker DNS:localhost,IP:127.0.0.1
    certificate kafka-ca bed-admin /CN=bed-admin
    certificate kafka-ca credence-admin /CN=credence-admin
}

# KAFKA_HOME: the jars are in the cache, the tools in the project, settings and data in the bed.
make_kafka_home() {
    mkdir -p "$DIR/kafka"
    ln -sfn "$KAFKA/libs" "$DIR/kafka/libs"
    ln -sfn "$BED_HOME/kafka/bin" "$DIR/kafka/bin"
    # Clients are trusted with a certificate of the bed itself or of the TrustDomain demo.
    cat "$DIR/pki/kafka-ca.crt" "$DIR/pki/demo.crt" >"$DIR/kafka/trusted-clients.pem"
    cat >"$DIR/kafka/admin.properties" <<END
bootstrap.servers=127.0.0.1:$(port kafka)
security.protocol=SSL
ssl.keystore.type=PEM
ssl.keystore.location=$DIR/pki/bed-admin.pem
ssl.truststore.type=PEM
ssl.truststore.location=$DIR/pki/kafka-ca.crt
END
    cat >"$DIR/kafka/server.properties" <<END
process.roles=broker,controller
node.id=1
log.dirs=$DIR/kafka/data
listeners=CLIENTS://127.0.0.1:$(port kafka),CONTROLLER://127.0.0.1:$(port kafka-controller)
listener.security.protocol.map=CLIENTS:SSL,CONTROLLER:SSL
inter.broker.listener.name=CLIENTS
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$(port kafka-controller)

# Every client needs a certificate, and so does the broker itself.
ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location=$DIR/pki/kafka.pem
ssl.truststore.type=PEM
ssl.truststore.location=$DIR/pki/kafka-ca.crt
listener.name.clients.ssl.truststore.type=PEM
listener.name.clients.ssl.truststore.location=$DIR/kafka/trusted-clients.pem

authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:CN=bed-broker;User:CN=bed-admin
auto.create.topics.enable=false

# A single node that starts quickly. With one network thread, all connections use a changed
# trust store at the same time.
num.network.threads=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
END
}

start_kafka() {
    local seen
    step "starting Kafka" "$DIR/logs/kafka.log"
    [ -d "$DIR/kafka/data" ] || "$DIR/kafka/bin/kafka-storage" format --standalone \
        --cluster-id Y3JlZGVuY2UtdGVzdC1iZQ --config "$DIR/kafka/server.properties" >>"$LOG" 2>&1
    seen=$(wc -c <"$LOG" 2>/dev/null || echo 0)
    KAFKA_LOG_LEVEL=info launch kafka "$DIR/kafka/bin/kafka-server" "$DIR/kafka/server.properties"
    wait_until 60 kafka kafka_said_after "$seen" 'Kafka Server started'
}

kafka_said_after() { # BYTES WHAT
    tail -c "+$(($1 + 1))" "$DIR/logs/kafka.log" | grep "$2"
}

# Credence may read and change ACLs at the broker, and nothing else.
let_credence_administer() {
    step "allowing Credence to manage ACLs" "$DIR/logs/kafka-acls.log"
    kafka_tool kafka-acls --add --allow-principal User:CN=credence-admin --cluster \
        --operation Describe --operation Alter >"$LOG" 2>&1
}

# Makes Kafka trust clients of one more root. Kafka reloads the file when its location is set
# again, and does so in the background.
trust_root() { # PEM FILE
    local trusted=$DIR/kafka/trusted-clients.pem seen
    openssl x509 -in "$1" -noout || fail "$1 is not a certificate in PEM"
    { cat "$trusted" && echo && cat "$1"; } >"$trusted.new"
    mv "$trusted.new" "$trusted"
    seen=$(wc -c <"$DIR/logs/kafka.log")
    kafka_tool kafka-configs --alter --entity-type brokers --entity-name 1 \
        --add-config "listener.name.clients.ssl.truststore.location=$trusted" >/dev/null
    wait_until 10 kafka kafka_said_after "$seen" 'Created new SERVER SSL engine builder' ||
        fail "Kafka did not load the root in $1" "look for the cause in $DIR/logs/kafka.log"
}
