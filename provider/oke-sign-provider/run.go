package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof" //nolint:gosec // it registers itself with a mux that nobody serves
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/provider/server"
)

// reloadEvery is how often the certificate files are looked at. The kubelet
// takes a minute to bring a changed Secret into a Pod, so this adds little.
const reloadEvery = 5 * time.Second

// process is what the program was started with.
type process struct {
	args           []string
	getenv         func(string) string
	stdout, stderr io.Writer
}

// run is the program: it returns when ctx ends and what was begun is finished,
// or when something it cannot go on without fails.
func run(ctx context.Context, with process) error {
	o, err := parse(with)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Fprintf(with.stdout, "oke-sign-provider %s %s %s/%s\n", build(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	}
	lines := newLines(with.stderr)
	defer lines.Flush()
	p := provider{options: o, log: o.logger(lines), metrics: prometheus.NewRegistry()}
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p.notReady("starting")
	if err := p.loadCertificates(); err != nil {
		return err
	}
	if err := p.connect(ctx); err != nil {
		return err
	}
	return p.serve(ctx)
}

// provider is the running program.
type provider struct {
	options
	log     *slog.Logger
	metrics *prometheus.Registry
	serving *certs.Serving
	callers *certs.Callers // nil: anybody may ask
	oci     *oci

	waits    atomic.Pointer[string] // what readiness waits for; nil when ready
	stopping atomic.Bool
}

func (p *provider) loadCertificates() (err error) {
	if p.serving, err = certs.LoadServing(p.tlsCert, p.tlsKey); err != nil {
		return err
	}
	if p.clientCA == "" {
		p.log.Warn("whoever can connect may ask: --client-ca is not given")
		return nil
	}
	p.callers, err = certs.LoadCallers(p.clientCA, p.clientName)
	return err
}

func (p *provider) serve(ctx context.Context) error {
	questions, err := listen(ctx, p.addr, "Gatekeeper")
	if err != nil {
		return err
	}
	probes, err := listen(ctx, p.healthAddr, "probes and metrics")
	if err != nil {
		return errors.Join(err, questions.Close())
	}
	p.log.Info("serving", "version", build(), "addr", questions.Addr().String(), "healthAddr", probes.Addr().String(),
		"path", server.Path, "principal", p.oci.who.String(), "certificateExpires", p.serving.NotAfter())

	cfg := server.Config{Check: p.oci.check, Known: p.oci.checker.Known, Budget: p.timeout, Log: p.log, Metrics: p.metrics}
	reloads := []func() (bool, error){p.serving.Reload}
	if p.callers != nil {
		cfg.Authorize = p.callers.Authorize
		reloads = append(reloads, p.callers.Reload)
	}
	asked := server.HTTP(p.leaving(server.Handler(cfg)))
	probed := server.HTTP(server.Health(p.ready, p.metrics))
	if p.pprof {
		probed.Handler = withProfiles(probed.Handler)
		probed.WriteTimeout = time.Minute // profiles take half a minute
	}
	asked.ErrorLog = slog.NewLogLogger(p.log.Handler(), slog.LevelWarn)
	probed.ErrorLog = asked.ErrorLog

	told := ctx
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return closed(asked.Serve(tls.NewListener(questions, certs.TLS(p.serving)))) })
	group.Go(func() error { return closed(probed.Serve(probes)) })
	group.Go(func() error {
		certs.Watch(ctx, reloadEvery, p.log, reloads...)
		return nil
	})
	group.Go(func() error {
		p.discover(ctx)
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		p.stopping.Store(true)
		if told.Err() != nil {
			// Probes hear first that this one is not ready; questions are answered
			// until that has got about.
			p.log.Info("shutting down", "answering", p.drainFor.String())
			time.Sleep(p.drainFor)
		}
		return p.finish(ctx, asked, probed)
	})
	err = group.Wait()
	p.log.Info("stopped")
	return err
}

// leaving tells callers, once the program is to stop, to ask elsewhere next time.
// Closing their connections instead would lose the question that one of them is
// just sending.
func (p *provider) leaving(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// finish lets the requests that are under way end, each within its budget, and
// answers probes until then.
func (p *provider) finish(ctx context.Context, asked, probed *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.timeout+2*time.Second)
	defer cancel()
	var errs []error
	for _, s := range []*http.Server{asked, probed} {
		if err := s.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("shutting down: %w", err), s.Close())
		}
	}
	return errors.Join(errs...)
}

// discover finds the namespace of the principal's tenancy, without which nothing
// of it is covered for certain. OCI not being there is no reason to exit: what
// is asked meanwhile gets an answer that says so.
func (p *provider) discover(ctx context.Context) {
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		err := p.oci.registry.Discover(ctx)
		if err == nil {
			p.waits.Store(nil)
			p.log.Info("ready")
			return
		}
		if ctx.Err() != nil {
			return
		}
		p.notReady(err.Error())
		p.log.Error("not ready", "error", err, "again", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (p *provider) notReady(why string) { p.waits.Store(&why) }

func (p *provider) ready() error {
	if p.stopping.Load() {
		return errors.New("shutting down")
	}
	if why := p.waits.Load(); why != nil {
		return errors.New(*why)
	}
	if at := p.serving.NotAfter(); time.Now().After(at) {
		return fmt.Errorf("the serving certificate expired at %s", at.Format(time.RFC3339))
	}
	return nil
}

// withProfiles adds the profiles of package pprof to what h serves.
func withProfiles(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func listen(ctx context.Context, addr, forWhom string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", forWhom, err)
	}
	return l, nil
}

// closed takes the one error away that says that all is well.
func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// build is the version that the linker was told, or else what the go command
// recorded.
func build() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
