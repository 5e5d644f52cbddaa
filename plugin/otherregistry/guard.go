package otherregistry

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"golang.org/x/net/publicsuffix"
)

var (
	errForeign = errors.New("the registry wants its credential sent to another domain")
	errPlain   = errors.New("the registry speaks plain HTTP, which is for loopback only")
)

// guard rejects requests that would show a credential to a host outside the registry's
// domain. A registry chooses the service that issues tokens, and may redirect to any host.
type guard struct {
	registry string // HOST or HOST:PORT
	next     http.RoundTripper
}

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	onLoopback := r.URL.Scheme == "http" && loopback(g.registry) && loopback(r.URL.Host)
	if r.URL.Scheme != "https" && !onLoopback {
		return nil, fmt.Errorf("%w: %.100q", errPlain, r.URL.Host)
	}
	// A body carries a credential as well: that of OAuth.
	secret := r.Header.Get("Authorization") != "" || r.Body != nil && r.Body != http.NoBody || r.URL.User != nil
	if secret && !own(g.registry, r.URL.Host) {
		return nil, fmt.Errorf("%w: %.100q", errForeign, r.URL.Host)
	}
	return g.next.RoundTrip(r)
}

// own reports whether a host is the registry's host or in the same domain, such as
// auth.docker.io for index.docker.io. Hosts below a public suffix, such as those of
// two customers of a cloud, share no domain. An IP address shares no domain with
// another.
func own(registry, host string) bool {
	if strings.EqualFold(registry, host) {
		return true
	}
	a, b := hostname(registry), hostname(host)
	if net.ParseIP(a) != nil || net.ParseIP(b) != nil {
		return false
	}
	of, err := publicsuffix.EffectiveTLDPlusOne(a)
	if err != nil {
		return false
	}
	with, err := publicsuffix.EffectiveTLDPlusOne(b)
	return err == nil && of == with
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	h := hostname(host)
	return h == "localhost" || net.ParseIP(h).IsLoopback()
}

func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}
