// Package otherregistry finds the digest to which a tag points in a registry other than
// OCI Registry. It asks the registry itself, with the user's Docker credentials.
//
// The package trusts the registry to know its tags, and nothing else. It never sends a
// credential to a host outside the registry's domain, and speaks plain HTTP only to
// loopback. Answers and time are bounded.
package otherregistry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/provider/image"
)

// DockerHub is the host of images without a host.
const DockerHub = "docker.io"

// Reference is an image reference of an other registry, as a node reads it. The zero
// Reference names nothing.
type Reference struct{ host, path, tag string }

// Parse reads an image reference without a digest as a node does: without a host the image
// is on Docker Hub, and without a tag the tag is latest.
func Parse(s string) (Reference, error) {
	if image.Classify(s) != image.Other || strings.Contains(s, "@") {
		return Reference{}, fmt.Errorf("%.200q is not a tag of an other registry", s)
	}
	host, path, found := strings.Cut(s, "/")
	// As image.Parse: the first part is a host if it looks like one.
	if !found || host != "localhost" && !strings.ContainsAny(host, ".:") && host == strings.ToLower(host) {
		host, path = DockerHub, s
	}
	path, tag := cutTag(path)
	if host == DockerHub || host == name.DefaultRegistry {
		host = DockerHub
		if !strings.Contains(path, "/") {
			path = "library/" + path
		}
	}
	return Reference{host, path, cmp.Or(tag, "latest")}, nil
}

func cutTag(path string) (string, string) {
	if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') {
		return path[:i], path[i+1:]
	}
	return path, ""
}

// String returns the whole reference, with host and tag.
func (r Reference) String() string { return r.host + "/" + r.path + ":" + r.tag }

// Host returns the host of the registry.
func (r Reference) Host() string { return r.host }

// Client asks registries. It is safe for concurrent use.
type Client struct {
	timeout time.Duration
	base    http.RoundTripper

	mu      sync.Mutex
	pullers map[string]*remote.Puller // by host: a puller signs in once for each repository
}

// Bounds of a question.
const (
	timeout       = 30 * time.Second
	answerTimeout = 10 * time.Second
	maxHeader     = 64 << 10
)

// New returns a client. It sends no request.
func New() *Client {
	base := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // net/http says so
	base.ResponseHeaderTimeout = answerTimeout
	base.MaxResponseHeaderBytes = maxHeader
	return &Client{timeout: timeout, base: base, pullers: make(map[string]*remote.Puller)}
}

// Digest returns the digest to which a tag points now.
func (c *Client) Digest(ctx context.Context, r Reference) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	type answer struct {
		digest string
		err    error
	}
	found := make(chan answer, 1)
	// A credential helper is a program that knows no context.
	go func() {
		digest, err := c.digest(ctx, r)
		found <- answer{digest, err}
	}()
	select {
	case a := <-found:
		return a.digest, explain(r, a.err)
	case <-ctx.Done():
		return "", explain(r, ctx.Err())
	}
}

func (c *Client) digest(ctx context.Context, r Reference) (string, error) {
	host := r.host
	if host == DockerHub {
		host = name.DefaultRegistry
	}
	registry, err := name.NewRegistry(host)
	if err != nil {
		return "", err
	}
	puller, err := c.puller(registry)
	if err != nil {
		return "", err
	}
	// HEAD, since Docker Hub counts a GET as a pull. Some registries answer it without
	// a digest.
	tag := registry.Repo(strings.Split(r.path, "/")...).Tag(r.tag)
	found, err := puller.Head(ctx, tag)
	if err != nil && ctx.Err() == nil && !refused(err) {
		got, failed := puller.Get(ctx, tag)
		if failed != nil {
			return "", failed
		}
		found, err = &got.Descriptor, nil
	}
	if err != nil {
		return "", err
	}
	digest := found.Digest.String()
	if !image.ValidDigest(digest) {
		return "", fmt.Errorf("the registry answered with the digest %.80q, which is not sha256", digest)
	}
	return digest, nil
}

func (c *Client) puller(of name.Registry) (*remote.Puller, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pullers[of.Name()]; p != nil {
		return p, nil
	}
	p, err := remote.NewPuller(
		remote.WithTransport(guard{of.RegistryStr(), c.base}),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent("kubectl-oke_sign"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 3}),
	)
	c.pullers[of.Name()] = p
	return p, err
}

// refused reports whether the registry answered, and another question would not help.
func refused(err error) bool {
	answered, ok := errors.AsType[*transport.Error](err)
	return ok && answered.StatusCode != http.StatusMethodNotAllowed
}

// explain adds to an error what the user can do.
func explain(r Reference, err error) error {
	if err == nil {
		return nil
	}
	const other = "pin images of OCI Registry only with --registries OCIRegistry"
	what := fmt.Errorf("asking %s: %s", r.host, cli.Clip(err.Error(), 300))
	login := "sign in, and try again: docker login " + r.host
	answered, ok := errors.AsType[*transport.Error](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &cli.HintedError{What: fmt.Errorf("asking %s: %w", r.host, err), Hint: "check the network and HTTPS_PROXY, or " + other}
	case errors.Is(err, errForeign), errors.Is(err, errPlain):
		return &cli.HintedError{What: what, Hint: "write the digest by hand, or " + other}
	case !ok:
		return &cli.HintedError{What: what, Hint: "check the name, the network and HTTPS_PROXY, or " + other}
	}
	switch answered.StatusCode {
	case http.StatusNotFound:
		return &cli.HintedError{What: fmt.Errorf("%s has no image %s", r.host, r), Hint: "check the name and the tag"}
	case http.StatusUnauthorized, http.StatusForbidden:
		return &cli.HintedError{What: fmt.Errorf("%s has no image %s, or you may not read it: %d", r.host, r, answered.StatusCode), Hint: login}
	case http.StatusTooManyRequests:
		return &cli.HintedError{What: fmt.Errorf("%s limits your requests: 429", r.host), Hint: "wait a few minutes; " + login}
	}
	return &cli.HintedError{What: what, Hint: "try again later, or " + other}
}
