# 1. Two services, OpenSSL at both ends, with nothing but their Secrets.

show_handshake() {
    heading "1. orders and inventory meet over mutual TLS; a stranger is refused"
    take shop orders-mtls orders
    take shop inventory-mtls inventory
    take partner outsider-mtls outsider
    handshake orders inventory
    say "orders talks to    $(peer 'Server certificate')"
    say "inventory hears    $(peer 'Client certificate')"
    [[ $(peer 'Server certificate') == spiffe://*/ns/shop/sa/inventory ]] || wrong "that is not inventory" "$WORK/client.log"
    [[ $(peer 'Client certificate') == spiffe://*/ns/shop/sa/orders ]] || wrong "that is not orders" "$WORK/client.log"
    # The stranger trusts the server well enough; it is the server that must refuse.
    if meet outsider inventory orders; then
        wrong "inventory let the stranger in" "$WORK/client.log"
    fi
    grep -q 'alert unknown ca' "$WORK/client.log" || wrong "the stranger failed, but not by being refused" "$WORK/client.log"
    say "outsider is told   $(grep -o 'alert unknown ca' "$WORK/client.log" | head -n1)"
}

handshake() { # CLIENT SERVER
    meet "$1" "$2" "$1" || wrong "the handshake of $1 with $2 failed" "$WORK/client.log"
}

# The server answers a request with what it knows of the connection, the client's
# certificate included, so an answer means that both sides were content.
meet() { # CLIENT SERVER ROOTS
    local port=$((12000 + RANDOM % 8000)) server code=0
    openssl s_server -accept "127.0.0.1:$port" -www -Verify 3 -verify_return_error \
        -cert "$WORK/$2/tls.crt" -cert_chain "$WORK/$2/tls.crt" -key "$WORK/$2/tls.key" -CAfile "$WORK/$2/ca.crt" \
        >"$WORK/server.log" 2>&1 </dev/null &
    server=$!
    until grep -q ACCEPT "$WORK/server.log"; do
        kill -0 "$server" 2>/dev/null || wrong "openssl s_server did not start" "$WORK/server.log"
        sleep 0.1
    done
    printf 'GET / HTTP/1.0\r\n\r\n' |
        timeout 10 openssl s_client -connect "127.0.0.1:$port" -verify_return_error -ign_eof \
            -cert "$WORK/$1/tls.crt" -cert_chain "$WORK/$1/tls.crt" -key "$WORK/$1/tls.key" -CAfile "$WORK/$3/ca.crt" \
            >"$WORK/client.log" 2>&1 || code=$?
    kill "$server"
    wait "$server" 2>/dev/null || true
    [ "$code" = 0 ] && grep -q 'HTTP/1.0 200 ok' "$WORK/client.log"
}

# The SPIFFE ID in the certificate that follows a heading in what both sides said.
peer() { # HEADING
    sed -n "/^$1/,/END CERTIFICATE/p" "$WORK/client.log" | sed -n '/BEGIN/,/END/p' |
        openssl x509 -noout -ext subjectAltName | grep -o 'spiffe://[^, ]*'
}
