package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof" //nolint:gosec // it registers with a mux that is not served
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/server"
)

// reloadEvery is how often the certificate files are read. The kubelet takes a minute
// to bring a changed Secret into a Pod, so this adds little.
const reloadEvery = 5 * time.Second

// run is the program. It returns when ctx ends and all requests are answered, or when
// a part fails that the program needs.
func run(ctx context.Context, with process) error {
	o, err := parse(with)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Fprintf(with.stdout, "oke-sign-provider %s %s %s/%s\n", build(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	}
	lines := newLines(with.stderr, o.handler)
	defer lines.Flush()
	p := provider{options: o, lines: lines, log: slog.New(o.handler(lines)), metrics: prometheus.NewRegistry()}
	p.observe = observe(p.metrics)
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p.notReady("starting")
	if err := p.loadCertificates(); err != nil {
		return err
	}
	// A process that is not ready serves metrics as well, so a scrape alone does not
	// show that it answers.
	p.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "oke_sign_ready", Help: "1 while /readyz says that the provider is ready, else 0.",
	}, func() float64 {
		if p.ready() != nil {
			return 0
		}
		return 1
	}))
	p.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "oke_sign_log_lines_dropped_total", Help: "Lines of the log that were dropped because nobody read standard error fast enough.",
	}, func() float64 { return float64(lines.Dropped()) }))
	if err := p.signIn(ctx); err != nil && !ociauth.IsUnvouched(err) {
		return err
	}
	return p.serve(ctx)
}

// provider is the running program.
type provider struct {
	options
	lines   *lines
	log     *slog.Logger
	metrics *prometheus.Registry
	observe func(oci.Attempt)
	serving *certs.Serving
	callers *certs.Callers                 // nil: every client may ask
	keep    []func(context.Context)        // keep the certificates
	trusts  func() error                   // why no client could connect; nil if clients can
	serves  func() error                   // why no client could be answered; nil if clients can
	clients *clients                       // nil until the program has signed in to OCI
	answers atomic.Pointer[server.Handler] // nil as long

	waits    atomic.Pointer[string] // what readiness waits for; nil when ready
	stopping atomic.Bool
}

// loadCertificates chooses the serving certificate and the accepted clients.
func (p *provider) loadCertificates() error {
	var cluster *certs.Cluster
	if p.inCluster() {
		var err error
		if cluster, err = certs.NewCluster(p.who.Workload.KubernetesHost, p.apiPort, cmp.Or(p.who.Workload.Dir, ociauth.ServiceAccount)); err != nil {
			return err
		}
	}
	var reloads []func() (bool, error)
	if p.ownCertificate() {
		own := certs.NewRotator(certs.RotatorConfig{
			Cluster: cluster, Secret: p.certSecret, Service: p.service, Providers: providers(), Log: p.log,
		})
		p.serving, p.serves = own.Serving(), own.Ready
		p.keep = append(p.keep, own.Run)
	} else {
		files, err := certs.LoadServing(p.tlsCert, p.tlsKey)
		if err != nil {
			return err
		}
		p.serving, p.serves = &files.Serving, files.Ready
		p.log.Info("serving certificate loaded", "file", p.tlsCert, "expires", files.NotAfter())
		reloads = append(reloads, files.Reload)
	}
	p.trusts = func() error { return nil }
	switch {
	case p.fromGatekeeper:
		gatekeeper := certs.NewGatekeeper(cluster, p.gatekeeper, p.clientName, p.log)
		p.callers, p.trusts = &gatekeeper.Callers, gatekeeper.Ready
		p.keep = append(p.keep, gatekeeper.Follow)
	case p.clientCA != "":
		file, err := certs.LoadCallers(p.clientCA, p.clientName)
		if err != nil {
			return err
		}
		p.callers = &file.Callers
		reloads = append(reloads, file.Reload)
	default:
		p.log.Warn("every client that can connect may ask: set --client-ca or --client-ca-from-gatekeeper")
	}
	if len(reloads) > 0 {
		p.keep = append(p.keep, func(ctx context.Context) { certs.Watch(ctx, reloadEvery, p.log, reloads...) })
	}
	return nil
}

func (p *provider) serve(ctx context.Context) error {
	asks, err := listen(ctx, p.addr, "Gatekeeper")
	if err != nil {
		return err
	}
	looks, err := listen(ctx, p.healthAddr, "probes and metrics")
	if err != nil {
		return errors.Join(err, asks.Close())
	}
	questions := server.Limit(asks, server.MaxConnections, "questions", p.metrics)
	probes := server.Limit(looks, server.MaxHealthConnections, "health", p.metrics)
	defer questions.Close() //nolint:errcheck // closed already after the first answer
	p.log.Info("serving", "version", build(), "addr", questions.Addr().String(), "healthAddr", probes.Addr().String(),
		"paths", server.SignaturesPath+" "+server.ScansPath+" "+server.DigestsPath)

	questionServer := server.HTTP(nil)
	probeServer := server.HTTP(server.Health(p.alive, p.ready, p.lines.Stuck, p.metrics))
	probeServer.IdleTimeout = 10 * time.Second // any client may connect, and probes use a connection once
	if p.pprof {
		probeServer.Handler = withProfiles(probeServer.Handler)
		probeServer.WriteTimeout = time.Minute // a profile takes half a minute
	}
	questionServer.ErrorLog = slog.NewLogLogger(p.log.Handler(), slog.LevelWarn)
	probeServer.ErrorLog = questionServer.ErrorLog

	signalled, accepted := ctx, make(chan struct{}) // closed when no further connection is accepted
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return closed(probeServer.Serve(probes)) })
	group.Go(func() error {
		defer close(accepted)
		if err := p.join(ctx); err != nil || p.clients == nil {
			return err
		}
		group.Go(func() error {
			p.discover(ctx)
			return nil
		})
		answers := server.New(p.handling())
		p.answers.Store(answers)
		questionServer.Handler = p.leaving(answers)
		return closed(questionServer.Serve(tls.NewListener(questions, certs.TLS(p.serving))))
	})
	for _, keep := range p.keep {
		group.Go(func() error {
			keep(ctx)
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		p.stopping.Store(true)
		if signalled.Err() != nil {
			// The probes fail first. The server answers questions until the Service has
			// removed this replica.
			p.log.Info("shutting down", "answering", p.drainFor.String())
			time.Sleep(p.drainFor)
			p.settle(questions, accepted)
		}
		return p.finish(ctx, questionServer, probeServer)
	})
	err = group.Wait()
	p.log.Info("stopped")
	return err
}

// handling returns the server's configuration.
func (p *provider) handling() server.Config {
	cfg := server.Config{
		Signatures: server.Signatures{Check: p.clients.checker.Gather, Cached: p.clients.checker.Cached, Limits: server.Limits{Timeout: p.timeout}},
		Scans:      server.Scans{Check: p.clients.scans.Check, Cached: p.clients.scans.Known, Limits: server.Limits{Timeout: p.scanTime}},
		Digests:    server.Digests{Check: p.clients.tags.Digest},
		Trace:      oci.WithRequests, Log: p.log, Metrics: p.metrics,
	}
	if p.callers != nil {
		cfg.Authorize = p.callers.Authorize
	}
	return cfg
}

// leaving returns a handler that sends callers to another replica once the program stops.
// It does not close connections, because a question may be on its way.
func (p *provider) leaving(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// settle stops listening and answers the connections that exist by then. An immediate
// close or shutdown would drop their questions.
func (p *provider) settle(questions *server.Listener, accepted <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	questions.Finish()
	<-accepted
	questions.Settle(ctx)
}

// finish waits until the requests in flight end, each within its timeout. Probes get
// answers until then.
func (p *provider) finish(ctx context.Context, questionServer, probeServer *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.timeout+2*time.Second)
	defer cancel()
	var errs []error
	for _, s := range []*http.Server{questionServer, probeServer} {
		err := s.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) { // a client without a question holds a connection
			err = s.Close()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("shutting down: %w", err))
		}
	}
	return errors.Join(errs...)
}

// join signs in to OCI, once. If the cluster issues no token now, join tries again and
// does not exit, because a restart takes longer than the next try.
func (p *provider) join(ctx context.Context) (fatal error) {
	p.retry(ctx, func() error {
		if p.clients != nil {
			return nil
		}
		err := p.signIn(ctx)
		if ociauth.IsUnvouched(err) {
			return err
		}
		fatal = err
		return nil
	})
	return fatal
}

// signIn signs in to OCI and makes the clients.
func (p *provider) signIn(ctx context.Context) error {
	clients, err := connect(ctx, p.options, p.observe, p.panicked)
	if err != nil {
		return err
	}
	p.clients = clients
	p.metrics.MustRegister(state{clients.checker, clients.scans, p.serving})
	return nil
}

// panicked logs a panic of a call to OCI. The question gets an error.
func (p *provider) panicked(e *contain.PanicError) {
	p.log.Error("panic while asking OCI", "error", e, "stack", string(e.Stack))
}

// discover asks OCI for the namespace of the identity's tenancy, even if --tenancy gives
// it. A rejected identity or a wrong namespace must show before this replica gets
// questions that another replica could answer. The program does not exit if OCI does not
// answer; questions then get an error that says so.
func (p *provider) discover(ctx context.Context) {
	p.retry(ctx, func() error {
		own, err := p.clients.who.Namespace(ctx)
		if err != nil {
			return err
		}
		return cmp.Or(p.clients.registry.Learn(own), p.clients.scanned.Learn(own), p.clients.tagged.Learn(own))
	})
	if ctx.Err() == nil {
		p.waits.Store(nil)
		p.log.Info("ready", "for", "OCI", "identity", p.clients.who.String())
	}
}

// retry repeats try until it succeeds or ctx ends. Until then, readiness reports the
// error.
func (p *provider) retry(ctx context.Context, try func() error) {
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		err := try()
		if err == nil || ctx.Err() != nil {
			return
		}
		p.notReady(err.Error())
		p.log.Error("not ready", "error", err, "again", wait.String())
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (p *provider) notReady(why string) { p.waits.Store(&why) }

func (p *provider) alive() error {
	if answers := p.answers.Load(); answers != nil {
		return answers.Alive()
	}
	return nil
}

func (p *provider) ready() error {
	if p.stopping.Load() {
		return errors.New("shutting down")
	}
	if why := p.waits.Load(); why != nil {
		return errors.New(*why)
	}
	return cmp.Or(p.serves(), p.trusts())
}

// withProfiles returns a handler that serves h and the profiles of package pprof.
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

// closed drops http.ErrServerClosed, which says that the server ended as intended.
func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
