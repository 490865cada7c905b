package com.example.service;

import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.BadJOSEException;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.DefaultResourceRetriever;
import com.nimbusds.jose.util.JSONObjectUtils;
import com.nimbusds.jose.util.X509CertUtils;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import com.nimbusds.jwt.proc.JWTProcessor;
import com.nimbusds.oauth2.sdk.ClientCredentialsGrant;
import com.nimbusds.oauth2.sdk.GeneralException;
import com.nimbusds.oauth2.sdk.Scope;
import com.nimbusds.oauth2.sdk.TokenRequest;
import com.nimbusds.oauth2.sdk.TokenResponse;
import com.nimbusds.oauth2.sdk.as.AuthorizationServerMetadata;
import com.nimbusds.oauth2.sdk.auth.PKITLSClientAuthentication;
import com.nimbusds.oauth2.sdk.http.HTTPRequest;
import com.nimbusds.oauth2.sdk.id.ClientID;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsExchange;
import com.sun.net.httpserver.HttpsParameters;
import com.sun.net.httpserver.HttpsServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import java.text.ParseException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocketFactory;

/**
 * A service that others call with access tokens (RFC 9068), and that calls others itself.
 *
 * <p>To build it, and to run it:
 *
 * <pre>
 * mvn -q package
 * java -jar target/service.jar serve PORT SCOPE            answers callers whose token has this scope, over HTTPS on 127.0.0.1
 * java -jar target/service.jar call URL AUDIENCE [SCOPE]   asks for a token, and calls a service whose SPIFFE ID is AUDIENCE
 * </pre>
 *
 * <p>IDENTITY is a folder with tls.crt, tls.key and ca.crt of the service's ServiceIdentity, SPIFFE_ID is its SPIFFE ID, ISSUER the URL
 * of the issuer of tokens, and ISSUER_CA a file with the authorities that vouch for the issuer's host. TOKEN is a token for call, which
 * then asks for none.
 */
public final class Service {
    private static final Duration TIMEOUT = Duration.ofSeconds(10);
    private static final Set<String> CLAIMS = Set.of("iss", "sub", "aud", "exp", "iat", "jti", "client_id");

    private final Path identity = Path.of(environment("IDENTITY"));
    private final String spiffeId = environment("SPIFFE_ID");
    private final String issuer = environment("ISSUER");
    private final Path issuerAuthorities = Path.of(environment("ISSUER_CA"));

    /** Why a caller is refused. */
    private static final class Refused extends Exception {
        final int status;

        Refused(int status, String message) {
            super(message);
            this.status = status;
        }
    }

    private Service() {}

    public static void main(String[] args) {
        String command = args.length > 0 ? args[0] : "";
        try {
            if (command.equals("serve") && args.length == 3) {
                new Service().serve(Integer.parseInt(args[1]), args[2]);
            } else if (command.equals("call") && (args.length == 3 || args.length == 4)) {
                new Service().call(URI.create(args[1]), args[2], args.length == 4 ? args[3] : "");
            } else {
                throw new IllegalArgumentException("usage: serve PORT SCOPE | call URL AUDIENCE [SCOPE]");
            }
        } catch (Exception e) {
            System.err.println(e.getMessage() != null ? e.getMessage() : e);
            System.exit(1);
        }
    }

    private static String environment(String name) {
        String value = System.getenv(name);
        if (value == null || value.isEmpty()) {
            throw new IllegalArgumentException(name + " is not set");
        }
        return value;
    }

    /** What the issuer says about itself (RFC 8414). */
    private AuthorizationServerMetadata metadata(SSLSocketFactory tls) throws GeneralException, IOException {
        return AuthorizationServerMetadata.resolve(new Issuer(issuer), request -> {
            request.setSSLSocketFactory(tls);
            request.setConnectTimeout((int) TIMEOUT.toMillis());
            request.setReadTimeout((int) TIMEOUT.toMillis());
        });
    }

    private JWTProcessor<SecurityContext> verifier() throws GeneralException, GeneralSecurityException, IOException {
        SSLSocketFactory tls = Tls.context(null, Tls.trusted(issuerAuthorities)).getSocketFactory();
        int timeout = (int) TIMEOUT.toMillis();
        DefaultResourceRetriever retriever = new DefaultResourceRetriever(
                timeout, timeout, JWKSourceBuilder.DEFAULT_HTTP_SIZE_LIMIT, true, tls);
        // By default, it keeps keys for 5 minutes, asks again for one that it does not know, and limits how often it asks.
        JWKSource<SecurityContext> keys = JWKSourceBuilder.create(metadata(tls).getJWKSetURI().toURL(), retriever).build();

        DefaultJWTProcessor<SecurityContext> verifier = new DefaultJWTProcessor<>();
        verifier.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(
                new JOSEObjectType("at+jwt"), new JOSEObjectType("application/at+jwt")));
        // A token does not choose its algorithm.
        verifier.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.ES256, keys));
        // By default, it lets the clocks differ by 60 seconds.
        JWTClaimsSet exact = new JWTClaimsSet.Builder().issuer(issuer).build();
        verifier.setJWTClaimsSetVerifier(new DefaultJWTClaimsVerifier<>(spiffeId, exact, CLAIMS));
        return verifier;
    }

    /** The claims of a token that the peer got for this service. */
    private static JWTClaimsSet verify(
            List<String> authorization,
            String peer,
            X509Certificate certificate,
            JWTProcessor<SecurityContext> verifier,
            String scope)
            throws Refused {
        String scheme = "Bearer ";
        if (authorization.size() != 1 || !authorization.get(0).regionMatches(true, 0, scheme, 0, scheme.length())) {
            throw new Refused(401, "send one Authorization header with a bearer token");
        }
        try {
            JWTClaimsSet claims = verifier.process(authorization.get(0).substring(scheme.length()), null);
            // The token belongs to the caller that got it. This holds when its certificate is renewed as well.
            if (!peer.equals(claims.getStringClaim("client_id"))) {
                throw new Refused(401, "the token was issued to another service");
            }
            // One that is bound to a certificate (RFC 8705 section 3.1) is for this certificate only. A binding that is not understood is
            // not ignored.
            Map<String, String> bound = Map.of("x5t#S256", X509CertUtils.computeSHA256Thumbprint(certificate).toString());
            if (claims.getClaims().containsKey("cnf") && !bound.equals(claims.getClaim("cnf"))) {
                throw new Refused(401, "the token is bound to another certificate");
            }
            if (!scopes(claims).contains(scope)) {
                throw new Refused(403, "the token has no scope " + scope);
            }
            return claims;
        } catch (ParseException | BadJOSEException e) {
            throw new Refused(401, e.getMessage());
        } catch (JOSEException e) {
            // The issuer did not answer, or too many unknown keys were asked for. Some of these exceptions have no message.
            throw new Refused(401, "the key of the token is not known");
        }
    }

    private static List<String> scopes(JWTClaimsSet claims) throws ParseException {
        return List.of(Objects.requireNonNullElse(claims.getStringClaim("scope"), "").split(" "));
    }

    private void serve(int port, String scope) throws GeneralException, GeneralSecurityException, IOException {
        JWTProcessor<SecurityContext> verifier = verifier();
        SSLContext tls = Tls.context(identity, Tls.trusted(identity.resolve("ca.crt")));
        // The only way to end a request that a client sends too slowly, the handshake included. In seconds.
        System.setProperty("sun.net.httpserver.maxReqTime", Long.toString(TIMEOUT.toSeconds()));
        HttpsServer server = HttpsServer.create(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), port), 0);
        server.setHttpsConfigurator(new HttpsConfigurator(tls) {
            @Override
            public void configure(HttpsParameters parameters) {
                SSLParameters needed = tls.getDefaultSSLParameters();
                needed.setNeedClientAuth(true);
                parameters.setSSLParameters(needed);
            }
        });
        // With a fixed number of threads, as many slow clients would keep out all others.
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", exchange -> answer((HttpsExchange) exchange, verifier, scope));
        server.start();
        System.out.println("serving on 127.0.0.1:" + server.getAddress().getPort());
    }

    private static void answer(HttpsExchange exchange, JWTProcessor<SecurityContext> verifier, String scope) throws IOException {
        try {
            if (!exchange.getRequestMethod().equals("GET")) {
                throw new Refused(405, "only GET is allowed");
            }
            X509Certificate certificate = (X509Certificate) exchange.getSSLSession().getPeerCertificates()[0];
            String peer = Tls.spiffeId(certificate);
            List<String> authorization = exchange.getRequestHeaders().getOrDefault("Authorization", List.of());
            JWTClaimsSet claims = verify(authorization, peer, certificate, verifier, scope);
            send(exchange, 200, new TreeMap<>(Map.of("caller", peer, "scopes", scopes(claims))));
        } catch (Refused e) {
            send(exchange, e.status, Map.of("error", e.getMessage()));
        } catch (CertificateException | ParseException e) {
            send(exchange, 401, Map.of("error", e.getMessage()));
        }
    }

    private static void send(HttpExchange exchange, int status, Map<String, ?> body) throws IOException {
        byte[] text = JSONObjectUtils.toJSONString(body).getBytes(StandardCharsets.UTF_8);
        try (exchange) {
            exchange.getResponseHeaders().set("Content-Type", "application/json");
            exchange.sendResponseHeaders(status, text.length);
            exchange.getResponseBody().write(text);
        }
    }

    /** A token for a service (RFC 6749 section 4.4), asked for with the certificate of this one (RFC 8705 section 2.1). */
    private String token(String audience, String scope) throws GeneralException, GeneralSecurityException, IOException {
        SSLSocketFactory tls = Tls.context(identity, Tls.trusted(issuerAuthorities)).getSocketFactory();
        TokenRequest.Builder builder = new TokenRequest.Builder(
                        metadata(tls).getTokenEndpointURI(),
                        new PKITLSClientAuthentication(new ClientID(spiffeId), tls),
                        new ClientCredentialsGrant())
                .customParameter("audience", audience);
        if (!scope.isEmpty()) {
            builder.scope(Scope.parse(scope));
        }
        HTTPRequest request = builder.build().toHTTPRequest();
        request.setConnectTimeout((int) TIMEOUT.toMillis());
        request.setReadTimeout((int) TIMEOUT.toMillis());
        TokenResponse response = TokenResponse.parse(request.send());
        if (!response.indicatesSuccess()) {
            throw new IOException("no token: " + response.toErrorResponse().getErrorObject().toJSONObject());
        }
        return response.toSuccessResponse().getTokens().getAccessToken().getValue();
    }

    private void call(URI url, String audience, String scope)
            throws GeneralException, GeneralSecurityException, IOException, InterruptedException, TimeoutException {
        // Over HTTP, anybody could read the token.
        if (!"https".equalsIgnoreCase(url.getScheme())) {
            throw new IllegalArgumentException(url + " is not an https URL");
        }
        String given = System.getenv("TOKEN");
        String bearer = given != null && !given.isEmpty() ? given : token(audience, scope);
        // It follows no redirects by default: the token is for this service and no other address.
        HttpClient client = HttpClient.newBuilder()
                .connectTimeout(TIMEOUT)
                .sslContext(Tls.context(identity, Tls.trusted(identity.resolve("ca.crt"), audience)))
                .build();
        HttpRequest request = HttpRequest.newBuilder(url).header("Authorization", "Bearer " + bearer).build();
        try {
            // The timeout of a request would not include the body.
            HttpResponse<String> response = client.sendAsync(request, HttpResponse.BodyHandlers.ofString())
                    .get(TIMEOUT.toMillis(), TimeUnit.MILLISECONDS);
            System.out.println(response.statusCode() + " " + response.body());
        } catch (ExecutionException e) {
            throw new IOException(url + ": " + e.getCause(), e);
        }
    }
}
