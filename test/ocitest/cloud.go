package ocitest

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// aboutHeader is on every answer, so that nobody takes it for an answer of Oracle's.
const (
	aboutHeader = "X-Oci-Emulator"
	about       = "oke-sign's OCI emulator, not Oracle Cloud"
)

// Config configures a [Cloud]. The zero value is an empty, strict cloud on a free
// port.
type Config struct {
	// Listen is the loopback address to listen on; 127.0.0.1:0 if empty.
	Listen string
	// Home is the directory for the files that clients need. If it is empty, New
	// makes a temporary one, and Close removes it.
	Home string
	// State is the file that New loads, if it exists, and that Save writes. If it is
	// empty, there is no such file.
	State string
	// Seed is the first content of the cloud: "" is nothing, "bare" is a tenancy and
	// an administrator, "demo" has vaults, keys and images too. A loaded state is
	// not seeded again.
	Seed string
	// Policy is a JSON file of users and IAM statements to add to the seeded
	// tenancy: {"users":[{"name":"ci","groups":["signers"]}],"statements":["Allow
	// group signers to manage repos in tenancy"]}. Each user has a config file in
	// Home, users/NAME/config. If Policy is empty, there is no such file.
	Policy string
	// Switches, if zero, are the preset that the environment names.
	Switches Switches
	// Settle is how long keys, vaults and signature records stay in a passing state
	// such as CREATING. If it is zero, they skip such states.
	Settle time.Duration
	// ScanAfter is the time between a push and the scan of the image, and ScanTakes
	// is the time of the scan. Both may be zero.
	ScanAfter, ScanTakes time.Duration
	// VaultReads is the limit of reads per second of a tenancy's vaults, at their
	// management endpoints. More reads get 429. Zero is no limit.
	VaultReads int
	// Now is the cloud's clock; time.Now if nil.
	Now func() time.Time
	// Log receives what happens inside. If it is nil, nothing is logged.
	Log *slog.Logger
}

// Cloud is a running emulator. Its methods are safe for concurrent use.
type Cloud struct {
	cfg      Config
	temp     bool // whether Close removes Home
	ca       *authority
	hosts    map[string]endpoint
	routes   []route
	admin    http.Handler
	url      string
	registry registryStore

	outer, inner *http.Server
	tunnels      *tunnels
	wait         sync.WaitGroup
	closing      context.Context // ends when the cloud closes, and with it every hanging request
	close        context.CancelFunc

	mu     sync.Mutex
	world  *world
	faults []*activeFault
	last   int64 // number of the newest fault
	calls  map[string]map[string]int
	recent []Request
	tokens map[string]remembered
	meters map[string]*meter

	instances map[string]*instance // by the fingerprint of their certificate
	running   map[string]*instance // by OCID; the instances that the cloud's own metadata service describes

	pod      *proxymux      // the endpoint of the cluster of the Pod in Home
	renewals []func() error // they renew tokens in Home

	keys  []*rsa.PrivateKey // of users
	dealt int
}

// New starts a cloud. The caller closes it.
func New(cfg Config) (*Cloud, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	c := &Cloud{
		cfg:    cfg,
		hosts:  fixedHosts(),
		routes: routes(),
		calls:  map[string]map[string]int{},
		tokens: map[string]remembered{},
		meters: map[string]*meter{},

		instances: map[string]*instance{},
		running:   map[string]*instance{},
	}
	c.closing, c.close = context.WithCancel(context.Background())
	c.admin = c.adminHandler()
	c.registry.init()
	ln, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	c.url = "http://" + ln.Addr().String()
	if err := c.prepare(); err != nil {
		c.close()
		c.closePod()
		c.wait.Wait()
		return nil, errors.Join(err, ln.Close(), c.leaveHome())
	}
	c.serve(ln)
	return c, nil
}

func (cfg *Config) complete() error {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Seed != "" && cfg.Seed != "bare" && cfg.Seed != "demo" {
		return fmt.Errorf("no seed is called %q, only bare and demo", cfg.Seed)
	}
	if cfg.Switches == (Switches{}) {
		var err error
		if cfg.Switches, err = FromEnvironment(); err != nil {
			return err
		}
	}
	return cfg.Switches.Validate()
}

// listen rejects every address that another machine could reach, because the
// emulator trusts every client.
func listen(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("listening on %q: not a loopback address such as 127.0.0.1:8040", addr)
	}
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return ln, nil
}

// prepare loads or seeds the world and writes the files that clients need.
func (c *Cloud) prepare() error {
	if c.cfg.Home == "" {
		dir, err := os.MkdirTemp("", "ocitest-")
		if err != nil {
			return fmt.Errorf("making a home: %w", err)
		}
		c.cfg.Home, c.temp = dir, true
	}
	home, err := filepath.Abs(c.cfg.Home)
	if err != nil {
		return fmt.Errorf("finding the home: %w", err)
	}
	c.cfg.Home = home
	if err := os.MkdirAll(home, 0o700); err != nil {
		return fmt.Errorf("making the home: %w", err)
	}
	loaded, err := c.load()
	if err != nil {
		return err
	}
	if !loaded {
		c.world = newWorld(c.cfg.Now)
	}
	c.world.scanAfter, c.world.scanTakes = c.cfg.ScanAfter, c.cfg.ScanTakes
	if !loaded {
		if c.ca, err = newAuthority(nil); err != nil {
			return err
		}
		if err := c.sow(); err != nil {
			return fmt.Errorf("sowing %s: %w", c.cfg.Seed, err)
		}
	}
	if err := c.readPolicy(); err != nil {
		return err
	}
	return c.writeHome()
}

// Close stops the cloud and every hanging request. It does not save the state.
func (c *Cloud) Close() error {
	c.close()
	err := errors.Join(c.outer.Close(), c.inner.Close(), c.tunnels.Close())
	c.closePod()
	c.wait.Wait()
	return errors.Join(err, c.leaveHome())
}

func (c *Cloud) closePod() {
	if c.pod != nil {
		c.pod.close()
	}
}

// leaveHome removes a temporary Home.
func (c *Cloud) leaveHome() error {
	if !c.temp {
		return nil
	}
	return os.RemoveAll(c.cfg.Home)
}

// URL returns the address of the proxy. The pages under /_emulator/ are there too.
func (c *Cloud) URL() string { return c.url }

// Home returns the directory with ca.pem, config and env.
func (c *Cloud) Home() string { return c.cfg.Home }

// Switches returns the cloud's switches. A tenancy may have different ones.
func (c *Cloud) Switches() Switches {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg.Switches
}

// SetSwitches changes the cloud's switches while it runs.
func (c *Cloud) SetSwitches(s Switches) error {
	if err := s.Validate(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cfg.Switches = s
	return nil
}

// SetSettle changes Config.Settle while the cloud runs.
func (c *Cloud) SetSettle(settle time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cfg.Settle = settle
}

// switches returns the switches of the tenancy that a compartment belongs to.
// Cloud.mu is held.
func (c *Cloud) switches(w *world, compartmentID string) Switches {
	if t := w.tenancyOf(compartmentID); t != nil && t.Switches != nil {
		return *t.Switches
	}
	return c.cfg.Switches
}

func (c *Cloud) errorLog() *log.Logger {
	return log.New(logWriter{c.cfg.Log}, "", 0)
}

// logWriter writes net/http's own messages to the log. Most are about clients that
// have left.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug("http", "message", string(p))
	return len(p), nil
}

var _ io.Writer = logWriter{}
