// Fetches the trust bundle of another trust domain (SPIFFE Federation), as a federated party would, and prints it as JSON:
//
//	federation web URL CA_FILE TRUST_DOMAIN                             the server has a certificate of a web PKI (https_web)
//	federation spiffe URL BUNDLE_FILE ENDPOINT_SPIFFE_ID TRUST_DOMAIN   the server presents its SVID (https_spiffe)
//	federation watch URL BUNDLE_FILE ENDPOINT_SPIFFE_ID TRUST_DOMAIN    as spiffe, and again whenever it has changed
package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func main() { fail(run(os.Args[1:])) }

func run(args []string) error {
	// The library sends its requests with a copy of this transport. There is no DNS where this runs: every host is this machine.
	http.DefaultTransport = &http.Transport{ForceAttemptHTTP2: true, DialContext: dial}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if len(args) < 4 || len(args) != map[string]int{"web": 4, "spiffe": 5, "watch": 5}[args[0]] {
		return errors.New("usage: federation web URL CA_FILE TRUST_DOMAIN | spiffe|watch URL BUNDLE_FILE ENDPOINT_SPIFFE_ID TRUST_DOMAIN")
	}
	url, file := args[1], args[2]
	domain, err := spiffeid.TrustDomainFromString(args[len(args)-1])
	if err != nil {
		return err
	}
	var auth federation.FetchOption
	if args[0] == "web" {
		auth, err = web(file)
	} else {
		auth, err = spiffe(file, args[3])
	}
	if err != nil {
		return err
	}
	if args[0] == "watch" {
		return federation.WatchBundle(ctx, domain, url, watcher{}, auth)
	}
	bundle, err := federation.FetchBundle(ctx, domain, url, auth)
	if err != nil {
		return err
	}
	return show(bundle)
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
}

func web(file string) (federation.FetchOption, error) {
	authorities, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return federation.WithWebPKIRoots(roots), nil
}

func spiffe(file, id string) (federation.FetchOption, error) {
	endpoint, err := spiffeid.FromString(id)
	if err != nil {
		return nil, err
	}
	known, err := x509bundle.Load(endpoint.TrustDomain(), file)
	if err != nil {
		return nil, err
	}
	return federation.WithSPIFFEAuth(known, endpoint), nil
}

func show(bundle *spiffebundle.Bundle) error {
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	authorities := []string{}
	for _, authority := range bundle.X509Authorities() {
		hash := sha256.Sum256(authority.Raw)
		authorities = append(authorities, hex.EncodeToString(hash[:]))
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"trustDomain": bundle.TrustDomain().Name(), "sequence": sequence, "refreshHint": hint.Seconds(), "authorities": authorities,
	})
}

// Asks every second, whatever the hint is, and ends when somebody reads no more, or with the first error.
type watcher struct{}

func (watcher) NextRefresh(time.Duration) time.Duration { return time.Second }

func (watcher) OnUpdate(bundle *spiffebundle.Bundle) { fail(show(bundle)) }

func (watcher) OnError(err error) { fail(err) }

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fetch failed:", err)
		os.Exit(1)
	}
}
