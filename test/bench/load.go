package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/provider/server"
)

const callerName = "gatekeeper-webhook-service.gatekeeper-system.svc"

// clients is the number of concurrent connections.
const clients = 4

// serveConstant is the main function of the child process. It serves until its standard
// input ends.
func serveConstant(ctx context.Context, dir string, out io.Writer) error {
	serving, err := certs.LoadServing(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		return err
	}
	w, err := newWorld(keysPerRequest)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := server.HTTP(constant(w))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(tls.NewListener(listener, certs.TLS(serving))) }()
	// The first line has the address, the second the request.
	if _, err := fmt.Fprintf(out, "%s\n%s\n", listener.Addr(), w.request(0)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	if err := srv.Close(); err != nil {
		return err
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// constant reads a request fully and always answers the same bytes.
func constant(w *world) http.Handler {
	items := make([]server.Item, keysPerRequest)
	for i := range items {
		items[i] = server.Item{Key: question(w.images[i], w.key.String()), Value: map[string]any{
			"signed": true, "reason": "signed", "key": w.key.String(), "keyVersion": keyVersion,
			"signature": "ocid1.containerimagesignature.oc1.iad.bench", "algorithm": "SHA_256_RSA_PKCS_PSS", "signedAt": "2021-12-21T07:02:58Z",
		}}
	}
	answer := encode(server.ProviderResponse{
		APIVersion: "externaldata.gatekeeper.sh/v1beta1", Kind: "ProviderResponse",
		Response: server.Response{Idempotent: true, Items: items},
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	})
}

type measured struct {
	keys int
	cpu  time.Duration // the server's, user and system
	took []time.Duration
}

func (m *measured) add(more measured) {
	m.keys += more.keys
	m.cpu += more.cpu
	m.took = append(m.took, more.took...)
}

func (m *measured) rate() float64 { return float64(m.keys) / m.cpu.Seconds() }

func (m *measured) figures(name string) []figure {
	slices.Sort(m.took)
	return []figure{
		{name, m.rate(), "keys/core-second"},
		{name + "_client_p50", float64(m.took[len(m.took)/2].Microseconds()), "µs/request"},
		{name + "_client_p99", float64(m.took[len(m.took)*99/100].Microseconds()), "µs/request"},
	}
}

// startConstant starts a server that only answers a constant, and returns the request
// for it. The server ends with its standard input.
func startConstant(ctx context.Context, dir string) (p *program, body string, stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-constant", "-dir", dir)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, "", nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", nil, err
	}
	stop = func() error { return errors.Join(stdin.Close(), cmd.Wait()) }
	lines := bufio.NewReader(stdout)
	addr, err := lines.ReadString('\n')
	if err == nil {
		body, err = lines.ReadString('\n')
	}
	if err != nil {
		return nil, "", nil, errors.Join(err, stop())
	}
	return &program{pid: cmd.Process.Pid, addr: strings.TrimSpace(addr)}, strings.TrimSpace(body), stop, nil
}

// load sends the same request over several connections. The first request of each is
// not timed, because it includes the handshake.
func (p *program) load(ctx context.Context, body string, config *tls.Config, duration time.Duration) (measured, error) {
	before, err := p.cpu()
	if err != nil {
		return measured{}, err
	}
	var (
		mu    sync.Mutex
		took  []time.Duration
		errs  []error
		wait  sync.WaitGroup
		until = time.Now().Add(duration)
	)
	for range clients {
		wait.Go(func() {
			times, err := ask(ctx, p.addr, body, config, until)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, times...)
			errs = append(errs, err)
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return measured{}, err
	}
	after, err := p.cpu()
	if err != nil {
		return measured{}, err
	}
	return measured{keys: (len(took) + clients) * keysPerRequest, cpu: after - before, took: took}, nil
}

func ask(ctx context.Context, addr, body string, config *tls.Config, until time.Time) ([]time.Duration, error) {
	transport := &http.Transport{TLSClientConfig: config.Clone()}
	defer transport.CloseIdleConnections()
	var took []time.Duration
	for n := 0; n < 2 || time.Now().Before(until); n++ {
		began := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+server.SignaturesPath, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return nil, err
		}
		if n := strings.Count(string(answer), `"signed":true`); n != keysPerRequest {
			return nil, fmt.Errorf("%d of %d images are signed: %.300s", n, keysPerRequest, answer)
		}
		if n > 0 {
			took = append(took, time.Since(began))
		}
	}
	return took, nil
}
