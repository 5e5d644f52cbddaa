package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/provider/server"
)

const callerName = "gatekeeper-webhook-service.gatekeeper-system.svc"

// clients is how many connections ask at once.
const clients = 4

// serve is the child's part: it serves until its standard input ends.
func serve(ctx context.Context, name, dir string, w *world) error {
	serving, err := certs.LoadServing(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		return err
	}
	callers, err := certs.LoadCallers(filepath.Join(dir, "ca.crt"), callerName)
	if err != nil {
		return err
	}
	// The provider logs a line for each decision and counts it; so it does here.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	handler := server.Handler(server.Config{
		Check: w.checker().Check, Authorize: callers.Authorize,
		Log: slog.New(slog.NewJSONHandler(null, nil)), Metrics: prometheus.NewRegistry(),
	})
	if name == "constant" {
		handler = constant(w)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := server.HTTP(handler)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(tls.NewListener(listener, certs.TLS(serving))) }()
	began, err := cpuTime()
	if err != nil {
		return err
	}
	// The first line says where, the second what to ask, the third what it cost.
	if _, err := fmt.Printf("%s\n%s\n", listener.Addr(), w.request(0)); err != nil { //nolint:forbidigo // the parent reads it
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	ended, err := cpuTime()
	if err != nil {
		return err
	}
	if _, err := fmt.Println(int64(ended - began)); err != nil { //nolint:forbidigo // as above
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

// constant reads a request as it must, and answers the same bytes to all.
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
	keys     int
	cpu      time.Duration // the server's, user and system
	p50, p99 time.Duration
}

// cpuTime is what this process has cost so far, in user and system time.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("asking for this process's CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// measure runs one server as a process and asks it as fast as it answers.
func measure(ctx context.Context, name, dir string, config *tls.Config, duration time.Duration) (measured, error) {
	self, err := os.Executable()
	if err != nil {
		return measured{}, err
	}
	cmd := exec.CommandContext(ctx, self, "-serve", name, "-dir", dir)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return measured{}, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return measured{}, err
	}
	if err := cmd.Start(); err != nil {
		return measured{}, err
	}
	lines := bufio.NewReader(stdout)
	addr, err := lines.ReadString('\n')
	var body string
	if err == nil {
		body, err = lines.ReadString('\n')
	}
	var got measured
	if err == nil {
		got, err = load(ctx, strings.TrimSpace(addr), strings.TrimSpace(body), config, duration)
	}
	err = errors.Join(err, stdin.Close())
	var cost int64
	if err == nil {
		_, err = fmt.Fscanln(lines, &cost)
		got.cpu = time.Duration(cost)
	}
	return got, errors.Join(err, cmd.Wait())
}

// load asks the same over several connections. Each begins with a request that
// is not counted, for the handshake and the caches.
func load(ctx context.Context, addr, body string, config *tls.Config, duration time.Duration) (measured, error) {
	var (
		mu    sync.Mutex
		took  []time.Duration
		errs  []error
		wait  sync.WaitGroup
		until = time.Now().Add(duration)
	)
	for range clients {
		wait.Go(func() {
			times, err := ask(ctx, addr, body, config, until)
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
	if len(took) == 0 {
		return measured{}, errors.New("not one request was answered in time")
	}
	slices.Sort(took)
	return measured{keys: len(took) * keysPerRequest, p50: took[len(took)/2], p99: took[len(took)*99/100]}, nil
}

func ask(ctx context.Context, addr, body string, config *tls.Config, until time.Time) ([]time.Duration, error) {
	transport := &http.Transport{TLSClientConfig: config.Clone()}
	defer transport.CloseIdleConnections()
	var took []time.Duration
	for first := true; first || time.Now().Before(until); first = false {
		began := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+server.Path, strings.NewReader(body))
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
		if !first {
			took = append(took, time.Since(began))
		}
	}
	return took, nil
}
