# Certificates of the parts of the bed. They come from openssl and not from Credence, because its
# certificates have to work together with those of others.

pki() { (cd "$DIR/pki" && "${CLOCK[@]}" openssl "$@" 2>>"$DIR/logs/openssl.log"); }

# A configuration without the defaults of the system, so that they do not add extensions.
plain_config() {
    printf '[req]\ndistinguished_name = dn\n[dn]\n' >"$DIR/pki/openssl.cnf"
}

authority() { # NAME
    pki req -config openssl.cnf -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "${PKI_DAYS:-365}" \
        -subj "/CN=$1" -keyout "$1.key" -out "$1.crt" \
        -addext 'basicConstraints = critical, CA:true' -addext 'keyUsage = critical, keyCertSign, cRLSign'
}

# A key (PKCS#8) and a certificate for a server, which clients verify by its alternative names, or
# for a client, which is identified by its subject.
certificate() { # AUTHORITY NAME SUBJECT [ALTERNATIVE NAMES]
    local authority=$1 name=$2 subject=$3 alternative=${4:-}
    pki req -config openssl.cnf -x509 -CA "$authority.crt" -CAkey "$authority.key" \
        -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "${PKI_DAYS:-365}" \
        -subj "$subject" -keyout "$name.key" -out "$name.crt" \
        -addext 'basicConstraints = critical, CA:false' -addext 'keyUsage = critical, digitalSignature' \
        -addext 'extendedKeyUsage = serverAuth, clientAuth' \
        ${alternative:+-addext "subjectAltName = $alternative"}
    cat "$DIR/pki/$name.key" "$DIR/pki/$name.crt" >"$DIR/pki/$name.pem"
}
