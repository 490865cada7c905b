# 1. Mutual TLS between two services: openssl at both ends, with the files of their Secrets.

show_handshake() {
    heading "1. orders connects to inventory over mutual TLS; a service of another trust domain is rejected"
    take shop orders-mtls orders
    take shop inventory-mtls inventory
    take partner outsider-mtls outsider
    handshake orders inventory
    say "orders sees        $(peer 'Server certificate')"
    say "inventory sees     $(peer 'Client certificate')"
    [[ $(peer 'Server certificate') == spiffe://*/ns/shop/sa/inventory ]] || wrong "this is not the certificate of inventory" "$WORK/client.log"
    [[ $(peer 'Client certificate') == spiffe://*/ns/shop/sa/orders ]] || wrong "this is not the certificate of orders" "$WORK/client.log"
    # outsider trusts the certificate of the server, so that only the server can reject the connection.
    if meet outsider inventory orders; then
        wrong "inventory accepted a client of another trust domain" "$WORK/client.log"
    fi
    grep -q 'alert unknown ca' "$WORK/client.log" || wrong "outsider failed for another reason than its certificate" "$WORK/client.log"
    say "outsider gets      $(grep -o 'alert unknown ca' "$WORK/client.log" | head -n1)"
}

handshake() { # CLIENT SERVER
    meet "$1" "$2" "$1" || wrong "the handshake of $1 with $2 failed" "$WORK/client.log"
}

# The server answers a request with a description of the connection and the certificate of the
# client. An answer shows that both sides accepted the certificate of the other.
meet() { # CLIENT SERVER ROOTS
    local port server code=0
    : >"$WORK/server.log"
    # The system chooses the port, and openssl prints it.
    openssl s_server -accept 127.0.0.1:0 -www -Verify 3 -verify_return_error \
        -cert "$WORK/$2/tls.crt" -cert_chain "$WORK/$2/tls.crt" -key "$WORK/$2/tls.key" -CAfile "$WORK/$2/ca.crt" \
        >"$WORK/server.log" 2>&1 </dev/null &
    server=$!
    until port=$(grep -oP '^ACCEPT 127.0.0.1:\K[0-9]+' "$WORK/server.log"); do
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

# The SPIFFE ID in the certificate below a heading of the output of openssl.
peer() { # HEADING
    sed -n "/^$1/,/END CERTIFICATE/p" "$WORK/client.log" | sed -n '/BEGIN/,/END/p' |
        openssl x509 -noout -ext subjectAltName | grep -o 'spiffe://[^, ]*'
}
