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
	// Dir is the cluster's folder: keys, logs, etcd's data. It must not exist, and
	// its name be short, as sockets in it have at most 107 bytes of path.
	Dir string
	// Programs is the folder that Build returned.
	Programs string
	// Project is the root of oke-sign's checkout: bin/oke-sign-provider and
	// bin/oci-emulator, the policies and the values for Gatekeeper's chart.
	Project string
	// Bare leaves out Gatekeeper and oke-sign, for whoever installs them himself. Their
	// Pods are sent to the Node that runs them.
	Bare bool
	// Command is run inside the cluster once it is up, and the cluster ends with
	// it. Without one the cluster stays until it is told to end.
	Command []string

	API, OCI string `json:",omitempty"` // host addresses of the doors, set by Start
}

func (cfg Config) path(parts ...string) string {
	return filepath.Join(append([]string{cfg.Dir}, parts...)...)
}

// Cluster is a cluster that this process started, and that ends with it.
type Cluster struct {
	cfg    Config
	cmd    *exec.Cmd
	holder io.Closer
	doors  []net.Listener
	ended  chan struct{}
	err    error
}

// insideArg is the name by which this program knows that it is to be the first
// process of a cluster.
const insideArg = "oke-sign-cluster-inside"

// Enter has to be called before anything else by every program that uses this
// package. In a process that Start or the cluster's kubelet began it does that
// process's work, and says with which code to exit.
func Enter() (code int, entered bool) {
	if err := kubelet.Child(os.Args[0]); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n", err)
		return 1, true
	}
	if os.Args[0] != insideArg || len(os.Args) != 2 {
		return 0, false
	}
	var cfg Config
	if err := json.Unmarshal([]byte(os.Args[1]), &cfg); err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		return 1, true
	}
	return enter(cfg), true
}

// Start begins to start a cluster. Its progress and what it dies of goes to
// stderr. When ctx ends, the cluster does.
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
		c.holder.Close()
	})
	return c, nil
}

// grace is how long a command inside, which had the same signal as the outside,
// has for its own clean-up.
const grace = 15 * time.Second

func (c *Cluster) begin(ctx context.Context, cfg Config) error {
	for _, door := range []struct {
		address *string
		socket  string
	}{{&cfg.API, "api.sock"}, {&cfg.OCI, "oci.sock"}} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		c.doors = append(c.doors, listener)
		*door.address = listener.Addr().String()
		go forward(listener, "unix", cfg.path(door.socket))
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
	c.holder = write
	c.cmd = exec.CommandContext(context.WithoutCancel(ctx), "/proc/self/exe")
	c.cmd.Args = []string{insideArg, string(text)}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.cmd.ExtraFiles = []*os.File{read}
	c.cmd.SysProcAttr = namespace.New()
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("namespaces of its own, which need root or unprivileged user namespaces: %w", err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return os.WriteFile(cfg.path("pid"), fmt.Append(nil, c.cmd.Process.Pid), 0o644)
}

// Ready waits until everything of the cluster is up.
func (c *Cluster) Ready(ctx context.Context) error {
	return until(ctx, func(context.Context) error {
		select {
		case <-c.ended:
			return fatal{fmt.Errorf("the cluster ended; its logs are in %s", c.cfg.path("log"))}
		default:
			_, err := os.Stat(c.cfg.path("ready"))
			return err
		}
	})
}

// Wait waits until the cluster has ended by itself and returns its exit code: that
// of its command, if it had one.
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

// close closes the doors and lets go of the pipe that the cluster lives by.
func (c *Cluster) close() error {
	var all []error
	for _, door := range c.doors {
		all = append(all, door.Close())
	}
	c.doors = nil
	if c.holder != nil {
		if err := c.holder.Close(); !errors.Is(err, os.ErrClosed) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}
