package com.example.service;

import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.Collection;
import java.util.List;
import java.util.Objects;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedTrustManager;

/** TLS with the PEM files of a ServiceIdentity. */
final class Tls {
    private static final int URI = 6; // GeneralName of RFC 5280 section 4.2.1.6

    private Tls() {}

    /** TLS to peers that are trusted, with the certificate of an identity, or with none if it is null. */
    static SSLContext context(Path identity, X509ExtendedTrustManager trusted) throws GeneralSecurityException, IOException {
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(identity == null ? null : keys(identity), new TrustManager[] {trusted}, null);
        return context;
    }

    /** Trusts peers that these authorities vouch for, and whose host is in their certificate where a client asks for that. */
    static X509ExtendedTrustManager trusted(Path authorities) throws GeneralSecurityException, IOException {
        KeyStore store = emptyStore();
        for (Certificate authority : certificates(authorities)) {
            store.setCertificateEntry("authority-" + store.size(), authority);
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        return (X509ExtendedTrustManager) factory.getTrustManagers()[0];
    }

    /** Trusts one service that these authorities vouch for, on any host. */
    static X509ExtendedTrustManager trusted(Path authorities, String spiffeId) throws GeneralSecurityException, IOException {
        return new ServiceTrustManager(trusted(authorities), spiffeId);
    }

    /** The SPIFFE ID of a peer whose chain was verified. */
    static String spiffeId(X509Certificate certificate) throws CertificateException {
        Collection<List<?>> names = Objects.requireNonNullElse(certificate.getSubjectAlternativeNames(), List.of());
        List<String> ids = names.stream()
                .filter(name -> name.get(0).equals(URI))
                .map(name -> (String) name.get(1))
                .toList();
        if (ids.size() != 1) {
            throw new CertificateException("the certificate has no SPIFFE ID");
        }
        return ids.get(0);
    }

    private static KeyManager[] keys(Path identity) throws GeneralSecurityException, IOException {
        Certificate[] chain = certificates(identity.resolve("tls.crt")).toArray(Certificate[]::new);
        String pem = Files.readString(identity.resolve("tls.key")).replaceAll("-----(BEGIN|END) PRIVATE KEY-----", "");
        PKCS8EncodedKeySpec spec = new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(pem));
        PrivateKey key = KeyFactory.getInstance(chain[0].getPublicKey().getAlgorithm()).generatePrivate(spec);
        // The store never leaves memory.
        char[] password = new char[0];
        KeyStore store = emptyStore();
        store.setKeyEntry("identity", key, password, chain);
        KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        factory.init(store, password);
        return factory.getKeyManagers();
    }

    private static KeyStore emptyStore() throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        return store;
    }

    private static Collection<? extends Certificate> certificates(Path path) throws GeneralSecurityException, IOException {
        try (InputStream stream = Files.newInputStream(path)) {
            return CertificateFactory.getInstance("X.509").generateCertificates(stream);
        }
    }

    /**
     * Knows a service by its SPIFFE ID, not by its host. HttpClient always asks for the check of the host; it is done by the methods of the
     * JDK's trust manager that take a connection, and not by those without one, which check the chain alone.
     */
    private static final class ServiceTrustManager extends X509ExtendedTrustManager {
        private final X509ExtendedTrustManager chains;
        private final String spiffeId;

        ServiceTrustManager(X509ExtendedTrustManager chains, String spiffeId) {
            this.chains = chains;
            this.spiffeId = spiffeId;
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String authType) throws CertificateException {
            chains.checkServerTrusted(chain, authType);
            String callee = spiffeId(chain[0]);
            if (!callee.equals(spiffeId)) {
                throw new CertificateException("the service is " + callee);
            }
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String authType, SSLEngine engine) throws CertificateException {
            checkServerTrusted(chain, authType);
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String authType, Socket socket) throws CertificateException {
            checkServerTrusted(chain, authType);
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String authType) throws CertificateException {
            throw new CertificateException("it trusts a service, not its callers");
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String authType, SSLEngine engine) throws CertificateException {
            checkClientTrusted(chain, authType);
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String authType, Socket socket) throws CertificateException {
            checkClientTrusted(chain, authType);
        }

        @Override
        public X509Certificate[] getAcceptedIssuers() {
            return chains.getAcceptedIssuers();
        }
    }
}
