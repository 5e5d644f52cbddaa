package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/oke-sign/oke-sign/test/cluster/kubelet"
	"github.com/oke-sign/oke-sign/test/cluster/namespace"
)

// Config says what to start, and where.
type Config struct {
	// Dir is the cluster's folder, with keys, logs and etcd's data. It must not exist.
	// Its name must be short, because the path of a socket has at most 107 bytes.
	Dir string
	// Programs is the folder that Build returned.
	Programs string
	// Project is the root of oke-sign's checkout: bin/oke-sign-provider and
	// bin/oci-emulator, the policies and the values for Gatekeeper's chart.
	Project string
	// Bare omits Gatekeeper and oke-sign, for callers that install them. Their Pods are
	// sent to the Node that runs them as processes.
	Bare bool
	// Command runs inside the cluster once it is up, and the cluster ends with it.
	// Without a command the cluster runs until it is told to end.
	Command []string

	API, OCI string `json:",omitempty"` // host addresses that are forwarded into the cluster, set by Start
}

func (cfg Config) path(parts ...string) string {
	return filepath.Join(append([]string{cfg.Dir}, parts...)...)
}

// Cluster is a cluster that this process started. It ends with this process.
type Cluster struct {
	cfg       Config
	cmd       *exec.Cmd
	lifeline  io.Closer
	listeners []net.Listener
	ended     chan struct{}
	err       error
}

// supervisorArg is argv[0] of a process that is to become the first process of a
// cluster.
const supervisorArg = "oke-sign-cluster-supervisor"

// Enter does the work of a process that Start or the cluster's kubelet began, and
// returns its exit code. Every program that uses this package must call Enter first. In
// any other process Enter does nothing.
func Enter() (code int, entered bool) {
	if err := kubelet.Child(os.Args[0]); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n", err)
		return 1, true
	}
	if os.Args[0] != supervisorArg || len(os.Args) != 2 {
		return 0, false
	}
	var cfg Config
	if err := json.Unmarshal([]byte(os.Args[1]), &cfg); err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		return 1, true
	}
	return supervise(cfg), true
}

// Start begins to start a cluster. The cluster writes its progress and a fatal error to
// stderr. It ends when ctx ends.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	c := &Cluster{ended: make(chan struct{})}
	if err := c.begin(ctx, cfg); err != nil {
		return nil, errors.Join(err, c.close())
	}
	context.AfterFunc(ctx, func() {
		select {
		case <-c.ended:
		case <-time.After(grace):
		}
		c.lifeline.Close()
	})
	return c, nil
}

// grace is the time that a command inside the cluster has for its clean-up, after the
// same signal as the process outside.
const grace = 15 * time.Second

func (c *Cluster) begin(ctx context.Context, cfg Config) error {
	for _, forwarded := range []struct {
		address *string
		socket  string
	}{{&cfg.API, "api.sock"}, {&cfg.OCI, "oci.sock"}} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		c.listeners = append(c.listeners, listener)
		*forwarded.address = listener.Addr().String()
		go forward(listener, "unix", cfg.path(forwarded.socket))
	}
	c.cfg = cfg
	text, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	if err := os.WriteFile(cfg.path("config.json"), text, 0o600); err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	c.lifeline = write
	c.cmd = exec.CommandContext(context.WithoutCancel(ctx), "/proc/self/exe")
	c.cmd.Args = []string{supervisorArg, string(text)}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.cmd.ExtraFiles = []*os.File{read}
	c.cmd.SysProcAttr = namespace.New()
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("creating namespaces, which needs root or unprivileged user namespaces: %w", err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return os.WriteFile(cfg.path("pid"), fmt.Append(nil, c.cmd.Process.Pid), 0o644)
}

// Ready waits until every part of the cluster is up.
func (c *Cluster) Ready(ctx context.Context) error {
	return poll(ctx, func(context.Context) error {
		select {
		case <-c.ended:
			return permanent{fmt.Errorf("the cluster ended; its logs are in %s", c.cfg.path("log"))}
		default:
			_, err := os.Stat(c.cfg.path("ready"))
			return err
		}
	})
}

// Wait waits until the cluster has ended by itself. It returns the exit code of the
// cluster's command, if there is one, or else the cluster's.
func (c *Cluster) Wait() (int, error) {
	<-c.ended
	err := c.close()
	if c.err != nil && c.cmd.ProcessState.ExitCode() < 0 {
		err = errors.Join(c.err, err)
	}
	return c.cmd.ProcessState.ExitCode(), err
}

// Stop ends everything in the cluster at once.
func (c *Cluster) Stop() error {
	err := c.close()
	<-c.ended
	return err
}

// close closes the forwarded ports and the pipe that the cluster's life depends on.
func (c *Cluster) close() error {
	var all []error
	for _, forwarded := range c.listeners {
		all = append(all, forwarded.Close())
	}
	c.listeners = nil
	if c.lifeline != nil {
		if err := c.lifeline.Close(); !errors.Is(err, os.ErrClosed) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}
