// Command bench measures the provider and prints one figure a line: name, value,
// unit.
//
// Figures over the network compare two servers that differ in nothing but what
// they do between request and answer: the provider with warm caches, and one
// that answers a constant. Each runs in a process of its own with one thread for
// Go code, and its cost is the CPU time that the system charges it, so that
// neither the client nor whatever else the machine does counts. The ratio of the
// two is worth more than either figure.
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
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/test/pki"
)

// keysPerRequest is what a large Pod asks at once.
const keysPerRequest = 10

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		log.Fatalf("bench: %v", err)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	duration := flags.Duration("duration", 3*time.Second, "how long each figure over the network is measured")
	child := flags.String("serve", "", "for the command's own use: be the `server` to measure")
	dir := flags.String("dir", "", "for the command's own use: where the certificates are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	w, err := newWorld(100)
	if err != nil {
		return err
	}
	if *child != "" {
		return serve(ctx, *child, *dir, w)
	}
	alone, err := handlerAlone(ctx, w)
	if err != nil {
		return err
	}
	refused, err := tooManyKeys(ctx)
	if err != nil {
		return err
	}
	over, err := network(ctx, *duration)
	if err != nil {
		return err
	}
	for _, f := range append(append(alone, refused...), over...) {
		if _, err := fmt.Fprintf(out, "%s %.4g %s\n", f.name, f.value, f.unit); err != nil {
			return err
		}
	}
	return nil
}

type figure struct {
	name  string
	value float64
	unit  string
}

// handlerAlone is a warm request without network, TLS and HTTP parsing.
func handlerAlone(ctx context.Context, w *world) ([]figure, error) {
	h := server.Handler(server.Config{Check: w.checker().Check})
	body := w.request(0)
	var bad error
	answer := func() {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, server.Path, strings.NewReader(body))
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

// tooManyKeys is what it costs to refuse a request that no policy sends.
func tooManyKeys(ctx context.Context) ([]figure, error) {
	h := server.Handler(server.Config{})
	body := envelope(make([]string, 10_000))
	var bad error
	refuse := func() {
		got := httptest.NewRecorder()
		h.ServeHTTP(got, httptest.NewRequestWithContext(ctx, http.MethodPost, server.Path, strings.NewReader(body)))
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

// network measures both servers over TLS 1.3 with client certificates and
// connections kept alive.
func network(ctx context.Context, duration time.Duration) (figures []figure, err error) {
	dir, err := os.MkdirTemp("", "oke-sign-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	client, err := certificates(dir)
	if err != nil {
		return nil, err
	}
	rates := make(map[string]float64)
	for _, name := range []string{"constant", "provider"} {
		got, err := measure(ctx, name, dir, client, duration)
		if err != nil {
			return nil, fmt.Errorf("measuring the %s server: %w", name, err)
		}
		rates[name] = float64(got.keys) / got.cpu.Seconds()
		prefix := map[string]string{"constant": "constant_answer_tls", "provider": "warm_verdict_tls"}[name]
		figures = append(figures,
			figure{prefix, rates[name], "keys/core-second"},
			figure{prefix + "_client_p50", float64(got.p50.Microseconds()), "µs/request"},
			figure{prefix + "_client_p99", float64(got.p99.Microseconds()), "µs/request"})
	}
	return append(figures,
		figure{"warm_verdict_tls_of_constant", rates["provider"] / rates["constant"], "ratio"},
		figure{"cores", float64(runtime.NumCPU()), "cores"}), nil
}

// certificates writes what the servers need into dir, and returns how a client
// has to speak to them.
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
