// Command bench measures the provider and the start of the plugin. It prints one figure
// a line: name, value, unit.
//
// The provider runs as a program against an emulated OCI, which answers after 60 ms
// unless a figure's name says otherwise. Questions come over TLS 1.3 with a client
// certificate. Costs are the CPU time that the system charges the provider, so the
// client and other load on the machine do not count. The figure for warm caches has a
// second figure beside it, for a server that answers a constant. The ratio of the two
// is more reliable than either. Memory and churn are measured on the caches alone,
// because no emulator is fast enough for them.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/test/pki"
)

// keysPerRequest is the number of questions for a large Pod.
const keysPerRequest = 10

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		log.Fatalf("bench: %v", err)
	}
}

// settings bound the measurements that have no natural end.
type settings struct {
	duration, outage, steady time.Duration
	churn                    int
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	var set settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.DurationVar(&set.duration, "duration", 3*time.Second, "how long figures over the network are measured")
	flags.DurationVar(&set.outage, "outage", 3*time.Second, "how long OCI is out for each kind of outage")
	flags.DurationVar(&set.steady, "steady", 15*time.Second, "how long Pods are made, 20 a second")
	flags.IntVar(&set.churn, "churn", 1_000_000, "how many distinct images pass through the caches")
	only := flags.String("only", "", "measure only this `part`")
	child := flags.Bool("constant", false, "internal: run the server that answers a constant")
	dir := flags.String("dir", "", "internal: directory of the certificates")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *child {
		return serveConstant(ctx, *dir, out)
	}
	parts, clear, err := set.parts()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clear()) }()
	for _, part := range parts {
		if *only != "" && part.name != *only {
			continue
		}
		figures, err := part.measure(ctx)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", part.name, err)
		}
		for _, f := range figures {
			if _, err := fmt.Fprintf(out, "%s %.4g %s\n", f.name, f.value, f.unit); err != nil {
				return err
			}
		}
	}
	return nil
}

// part is one measurement.
type part struct {
	name    string
	measure func(context.Context) ([]figure, error)
}

// parts returns all measurements in the order of printing, and a function that removes
// their files.
func (set settings) parts() ([]part, func() error, error) {
	dir, err := os.MkdirTemp("", "oke-sign-bench-")
	if err != nil {
		return nil, nil, err
	}
	clear := func() error { return os.RemoveAll(dir) }
	client, err := certificates(dir)
	if err != nil {
		return nil, nil, errors.Join(err, clear())
	}
	program := sync.OnceValues(func() (string, error) { return buildProvider(context.Background(), dir) })
	on := func(name string, env []string, play func(context.Context, *scene) []figure) part {
		return part{name, func(ctx context.Context) ([]figure, error) {
			path, err := program()
			if err != nil {
				return nil, err
			}
			return stage(ctx, path, dir, client, env, func(s *scene) []figure { return play(ctx, s) })
		}}
	}
	return []part{
		{"handler", handlerAlone},
		{"refusal", tooManyKeys},
		on("warm", []string{"GOMAXPROCS=1"}, func(ctx context.Context, s *scene) []figure {
			return warm(ctx, s, dir, client, set.duration)
		}),
		on("cold", nil, cold),
		on("audit", nil, audit),
		on("fill", nil, fill),
		on("steady", nil, func(ctx context.Context, s *scene) []figure { return steady(ctx, s, set.steady) }),
		on("fairness", nil, fairness),
		on("outage", nil, func(ctx context.Context, s *scene) []figure { return outages(ctx, s, set.outage) }),
		on("attack", nil, func(ctx context.Context, s *scene) []figure { return attack(ctx, s, client, set.duration) }),
		{"plugin", func(ctx context.Context) ([]figure, error) { return pluginStart(ctx, dir) }},
		{"memory", func(ctx context.Context) ([]figure, error) { return memory(ctx, set.churn) }},
	}, clear, nil
}

type figure struct {
	name  string
	value float64
	unit  string
}

// handlerAlone measures a warm request without network, TLS and HTTP parsing.
func handlerAlone(ctx context.Context) ([]figure, error) {
	w, err := newWorld(keysPerRequest)
	if err != nil {
		return nil, err
	}
	check := w.checker()
	h := server.New(server.Config{Signatures: server.Signatures{Check: check.Gather, Cached: check.Cached}})
	body := w.request(0)
	var bad error
	answer := func() {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, server.SignaturesPath, strings.NewReader(body))
		got := httptest.NewRecorder()
		h.ServeHTTP(got, r)
		if n := strings.Count(got.Body.String(), `"signed":true`); n != keysPerRequest {
			bad = fmt.Errorf("%d of %d images are signed: %s", n, keysPerRequest, got.Body)
		}
	}
	answer() // fills the caches
	res := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			answer()
		}
	})
	return []figure{
		{"warm_verdict_handler_alone", float64(res.NsPerOp()) / keysPerRequest, "ns/key"},
		{"warm_verdict_handler_alone_allocations", float64(res.AllocsPerOp()) / keysPerRequest, "allocs/key"},
	}, bad
}

// tooManyKeys measures the rejection of a request that no policy sends.
func tooManyKeys(ctx context.Context) ([]figure, error) {
	w, err := newWorld(1)
	if err != nil {
		return nil, err
	}
	h := server.New(server.Config{Signatures: server.Signatures{Check: w.checker().Check}})
	body := envelope(make([]string, 10_000))
	var bad error
	refuse := func() {
		got := httptest.NewRecorder()
		h.ServeHTTP(got, httptest.NewRequestWithContext(ctx, http.MethodPost, server.SignaturesPath, strings.NewReader(body)))
		if got.Code != http.StatusRequestEntityTooLarge {
			bad = fmt.Errorf("10 000 keys are answered with status %d: %s", got.Code, got.Body)
		}
	}
	res := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			refuse()
		}
	})
	return []figure{
		{"refuse_10000_keys_time", float64(res.NsPerOp()) / 1000, "µs/request"},
		{"refuse_10000_keys_allocated", float64(res.AllocedBytesPerOp()), "B/request"},
		{"refuse_10000_keys_body", float64(len(body)), "B/request"},
	}, bad
}

// certificates writes the servers' TLS files into dir, and returns the client's
// configuration.
func certificates(dir string) (*tls.Config, error) {
	ca, err := pki.NewAuthority("bench-ca")
	if err != nil {
		return nil, err
	}
	own, err := ca.Issue(pki.Leaf{Names: []string{"127.0.0.1"}})
	if err != nil {
		return nil, err
	}
	caller, err := ca.Issue(pki.Leaf{Names: []string{callerName}})
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{"ca.crt": ca.PEM(), "tls.crt": own.Cert, "tls.key": own.Key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	cert, err := caller.TLS()
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.Pool(), Certificates: []tls.Certificate{cert}}, nil
}
