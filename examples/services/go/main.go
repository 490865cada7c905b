// A service that others call with access tokens (RFC 9068), and that calls others itself.
//
// To build it, and to run it:
//
//	go build -o service .
//	./service serve PORT SCOPE            answers callers whose token has this scope, over HTTPS on 127.0.0.1
//	./service call URL AUDIENCE [SCOPE]   asks for a token, and calls a service whose SPIFFE ID is AUDIENCE
//
// IDENTITY is a folder with tls.crt, tls.key and ca.crt of the service's ServiceIdentity, SPIFFE_ID is its SPIFFE ID, ISSUER the URL of
// the issuer of tokens, and ISSUER_CA a file with the authorities that vouch for the issuer's host. TOKEN is a token for call, which
// then asks for none.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const timeout = 10 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	s, err := newService()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 3 && args[0] == "serve":
		return s.serve(args[1], args[2])
	case len(args) == 3 && args[0] == "call":
		return s.call(args[1], args[2], "")
	case len(args) == 4 && args[0] == "call":
		return s.call(args[1], args[2], args[3])
	}
	return errors.New("usage: service serve PORT SCOPE | service call URL AUDIENCE [SCOPE]")
}

type service struct {
	spiffeID    string
	issuer      string
	issuerCA    *x509.CertPool
	certificate tls.Certificate
	peerCA      *x509.CertPool
}

func newService() (*service, error) {
	for _, name := range []string{"IDENTITY", "SPIFFE_ID", "ISSUER", "ISSUER_CA"} {
		if os.Getenv(name) == "" {
			return nil, fmt.Errorf("%s is not set", name)
		}
	}
	s := &service{spiffeID: os.Getenv("SPIFFE_ID"), issuer: os.Getenv("ISSUER")}
	identity := os.Getenv("IDENTITY")
	var err error
	if s.certificate, err = tls.LoadX509KeyPair(filepath.Join(identity, "tls.crt"), filepath.Join(identity, "tls.key")); err != nil {
		return nil, err
	}
	if s.peerCA, err = authorities(filepath.Join(identity, "ca.crt")); err != nil {
		return nil, err
	}
	if s.issuerCA, err = authorities(os.Getenv("ISSUER_CA")); err != nil {
		return nil, err
	}
	return s, nil
}

func authorities(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", path)
	}
	return pool, nil
}

// spiffeIDOf returns the SPIFFE ID of a peer whose chain was verified.
func spiffeIDOf(state *tls.ConnectionState) (string, error) {
	uris := state.PeerCertificates[0].URIs
	if len(uris) != 1 {
		return "", errors.New("the certificate has no SPIFFE ID")
	}
	return uris[0].String(), nil
}

// discover asks the issuer what it says about itself. The context that it returns has the HTTP client for further requests to the issuer.
func (s *service) discover(config *tls.Config) (context.Context, *oidc.Provider, error) {
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{TLSClientConfig: config}}
	ctx := oidc.ClientContext(context.Background(), client)
	provider, err := oidc.NewProvider(ctx, s.issuer)
	return ctx, provider, err
}

func (s *service) serve(port, scope string) error {
	ctx, provider, err := s.discover(&tls.Config{RootCAs: s.issuerCA})
	if err != nil {
		return err
	}
	// It fetches the keys again for each token that those it has do not verify, without a limit; until then, it drops none of them.
	// Without SupportedSigningAlgs, the metadata of the issuer would decide.
	verifier := provider.VerifierContext(ctx, &oidc.Config{ClientID: s.spiffeID, SupportedSigningAlgs: []string{oidc.ES256}})

	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		peer, err := spiffeIDOf(r.TLS)
		if err != nil {
			answer(w, http.StatusUnauthorized, refusal{err.Error()})
			return
		}
		granted, err := verify(r, verifier, peer)
		if err != nil {
			answer(w, http.StatusUnauthorized, refusal{err.Error()})
			return
		}
		scopes := strings.Split(granted, " ")
		if !slices.Contains(scopes, scope) {
			answer(w, http.StatusForbidden, refusal{"the token has no scope " + scope})
			return
		}
		answer(w, http.StatusOK, welcome{peer, scopes})
	})
	server := &http.Server{
		Handler: mux,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{s.certificate},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    s.peerCA,
		},
		ReadTimeout:  timeout,
		WriteTimeout: 2 * timeout, // It begins before the keys of the issuer are fetched.
		IdleTimeout:  timeout,
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return err
	}
	fmt.Printf("serving on %s\n", listener.Addr())
	return server.ServeTLS(listener, "", "")
}

type welcome struct {
	Caller string   `json:"caller"`
	Scopes []string `json:"scopes"`
}

type refusal struct {
	Error string `json:"error"`
}

func answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// An error means that the caller is gone.
	_, _ = w.Write(text)
}

// verify returns the scopes of a token that the peer got for this service.
func verify(r *http.Request, verifier *oidc.IDTokenVerifier, peer string) (string, error) {
	authorization := r.Header.Values("Authorization")
	if len(authorization) != 1 {
		return "", errors.New("send one Authorization header with a bearer token")
	}
	scheme, raw, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New("send one Authorization header with a bearer token")
	}
	if err := requireAccessToken(raw); err != nil {
		return "", err
	}
	// Signature, iss, aud, exp and nbf. That the type is called an ID token in this library makes no difference to them.
	token, err := verifier.Verify(r.Context(), raw)
	if err != nil {
		return "", err
	}
	var claims struct {
		ID           string          `json:"jti"`
		ClientID     string          `json:"client_id"`
		Confirmation json.RawMessage `json:"cnf"`
		Scope        string          `json:"scope"`
	}
	if err := token.Claims(&claims); err != nil {
		return "", err
	}
	if token.Subject == "" || token.IssuedAt.IsZero() || claims.ID == "" || claims.ClientID == "" {
		return "", errors.New("the token lacks one of sub, iat, jti and client_id")
	}
	// The token belongs to the caller that got it. This holds when its certificate is renewed as well.
	if claims.ClientID != peer {
		return "", errors.New("the token was issued to another service")
	}
	// One that is bound to a certificate is for this certificate only. A binding that is not understood is not ignored.
	if claims.Confirmation != nil && !confirms(claims.Confirmation, r.TLS.PeerCertificates[0]) {
		return "", errors.New("the token is bound to another certificate")
	}
	return claims.Scope, nil
}

// confirms tells whether a cnf claim has the digest of a certificate, and nothing else (RFC 8705 section 3.1).
func confirms(confirmation json.RawMessage, certificate *x509.Certificate) bool {
	digest := sha256.Sum256(certificate.Raw)
	var members map[string]string
	err := json.Unmarshal(confirmation, &members)
	return err == nil && maps.Equal(members, map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(digest[:])})
}

// requireAccessToken checks the header, of which go-oidc only looks at the algorithm and the key: a token of another type, which the same
// issuer may sign with the same key, is not an access token.
func requireAccessToken(raw string) error {
	// Verify would also take a JWS in JSON, whose header need not be signed.
	parsed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return err
	}
	kind, _ := parsed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType].(string)
	if strings.TrimPrefix(strings.ToLower(kind), "application/") != "at+jwt" {
		return errors.New("it is another type of token")
	}
	return nil
}

// token asks for a token for a service (RFC 6749 section 4.4), with the certificate of this one.
func (s *service) token(audience, scope string) (string, error) {
	ctx, provider, err := s.discover(&tls.Config{Certificates: []tls.Certificate{s.certificate}, RootCAs: s.issuerCA})
	if err != nil {
		return "", err
	}
	config := clientcredentials.Config{
		ClientID:       s.spiffeID,
		TokenURL:       provider.Endpoint().TokenURL,
		Scopes:         strings.Fields(scope),
		EndpointParams: url.Values{"audience": {audience}},
		AuthStyle:      oauth2.AuthStyleInParams,
	}
	token, err := config.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("no token: %w", err)
	}
	return token.AccessToken, nil
}

func (s *service) call(target, audience, scope string) error {
	request, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	// Over HTTP, anybody could read the token.
	if request.URL.Scheme != "https" {
		return fmt.Errorf("%s is not an https URL", target)
	}
	bearer := os.Getenv("TOKEN")
	if bearer == "" {
		if bearer, err = s.token(audience, scope); err != nil {
			return err
		}
	}
	request.Header.Set("Authorization", "Bearer "+bearer)
	client := &http.Client{
		Timeout:   timeout,
		Transport: &http.Transport{TLSClientConfig: s.toService(audience)},
		// The token is for this service and no other address.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	fmt.Println(response.StatusCode, string(body))
	return nil
}

// toService configures TLS to a service that is known by its SPIFFE ID, not by its host. InsecureSkipVerify turns off the check of the
// host and that of the chain; VerifyConnection does the latter again.
func (s *service) toService(audience string) *tls.Config {
	return &tls.Config{
		Certificates:       []tls.Certificate{s.certificate},
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			intermediates := x509.NewCertPool()
			for _, certificate := range state.PeerCertificates[1:] {
				intermediates.AddCert(certificate)
			}
			options := x509.VerifyOptions{
				Roots:         s.peerCA,
				Intermediates: intermediates,
				KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			}
			if _, err := state.PeerCertificates[0].Verify(options); err != nil {
				return err
			}
			callee, err := spiffeIDOf(&state)
			if err != nil {
				return err
			}
			if callee != audience {
				return fmt.Errorf("the service is %s", callee)
			}
			return nil
		},
	}
}
