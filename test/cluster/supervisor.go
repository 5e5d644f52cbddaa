package cluster

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oke-sign/oke-sign/test/cluster/namespace"
)

// Addresses inside a cluster's network. Every cluster has the same.
const (
	serviceNetwork = "127.96.0.0/16"
	kubernetesIP   = "127.96.0.1" // the Service kubernetes.default
	identityPort   = "12250"      // beside the API server, at the same address
	apiServer      = "127.0.0.1:6443"
	etcdClients    = "http://127.0.0.1:2379"
	etcdPeers      = "http://127.0.0.1:2380"
	kwokServer     = "127.0.0.1:10247"
	emulator       = "127.0.0.1:8040"
)

// supervisor is the first process of a cluster's namespaces. It starts and controls all
// other processes.
type supervisor struct {
	Config
	began    time.Time
	keys     pki
	programs []*program
	node     *node
	end      chan int // takes the exit code
}

// supervise runs a cluster from its first process, and returns the exit code.
func supervise(cfg Config) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &supervisor{Config: cfg, began: time.Now(), keys: pki{cfg.path("pki")}, end: make(chan int, 3)}
	// The process that started this cluster holds the other end of the pipe. When that
	// process ends, in any way, the cluster ends too.
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(3, "lifeline"))
		c.end <- 1
	}()
	go func() {
		code, err := c.runToEnd(ctx)
		if err != nil {
			fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		}
		c.end <- code
	}()
	return <-c.end
}

func (c *supervisor) runToEnd(ctx context.Context) (int, error) {
	if err := c.up(ctx); ctx.Err() != nil {
		return 130, errors.New("interrupted while it came up")
	} else if err != nil {
		return 1, err
	}
	if len(c.Command) > 0 {
		return c.command(ctx)
	}
	<-ctx.Done()
	return 0, nil
}

// command runs the command that the cluster was started for.
func (c *supervisor) command(ctx context.Context) (int, error) {
	cmd := exec.CommandContext(ctx, c.Command[0], c.Command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = c.environ()
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("%s: %w", c.Command[0], err)
	}
	return 0, nil
}

// environ returns the environment of a command inside the cluster.
func (cfg Config) environ() []string {
	own := map[string]string{
		"KUBECONFIG":       cfg.path("inside.kubeconfig"),
		"KUBECACHEDIR":     cfg.path("kubectl"), // kubectl caches kinds by address, and every cluster has the same
		"PATH":             cfg.Programs + ":" + filepath.Join(cfg.Project, "bin") + ":" + os.Getenv("PATH"),
		"OKE_SIGN_CLUSTER": cfg.Dir,
		"HELM_CACHE_HOME":  cfg.path("helm"),
		"HELM_CONFIG_HOME": cfg.path("helm"),
		"HELM_DATA_HOME":   cfg.path("helm"),
	}
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return own[name] != ""
	})
	for name, value := range own {
		env = append(env, name+"="+value)
	}
	return env
}

// up starts all parts, each after the parts that it needs.
func (c *supervisor) up(ctx context.Context) error {
	type step struct {
		name string
		do   func(context.Context) error
	}
	steps := []step{
		{"namespaces and keys", c.prepare},
		{"etcd", c.startAll("etcd")},
		{"kube-apiserver", c.startAll("kube-apiserver")},
		{"kube-controller-manager, kube-scheduler, kwok", c.startAll("kube-controller-manager", "kube-scheduler", "kwok", "oci-emulator")},
		{"nodes", c.nodes},
	}
	if c.Bare {
		steps = append(steps, step{"where Pods go", func(ctx context.Context) error { return c.apply(ctx, "bare.yaml", nil) }})
	} else {
		steps = append(steps, step{"Gatekeeper", c.gatekeeper}, step{"oke-sign", c.okeSign})
	}
	for _, step := range steps {
		began := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(os.Stderr, "  %5.1f s  %s (%.1f s)\n", time.Since(c.began).Seconds(), step.name, time.Since(began).Seconds())
	}
	return os.WriteFile(c.path("ready"), nil, 0o644)
}

func (c *supervisor) prepare(ctx context.Context) error {
	if err := namespace.Settle(); err != nil {
		return err
	}
	hosts := c.path("hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(hosts, "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on /etc/hosts: %w", hosts, err)
	}
	if err := c.keys.make(); err != nil {
		return err
	}
	for _, user := range []string{"admin", "controller-manager", "scheduler"} {
		text, err := c.kubeconfig(user, "https://"+apiServer)
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.kubeconfigPath(user), text, 0o600); err != nil {
			return err
		}
	}
	if err := os.Symlink("admin.kubeconfig", c.path("inside.kubeconfig")); err != nil {
		return err
	}
	outer, err := c.kubeconfig("admin", "https://"+c.API)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("kubeconfig"), outer, 0o600); err != nil {
		return err
	}
	c.programs = c.controlPlane()
	c.node = &node{supervisor: c}
	for name, address := range map[string]string{"api": apiServer, "oci": emulator} {
		if err := forwardSocket(ctx, c.path(name+".sock"), address); err != nil {
			return err
		}
	}
	return c.serveControl(ctx)
}

func (c *supervisor) kubeconfigPath(user string) string { return c.path(user + ".kubeconfig") }

// kubeconfig returns a self-contained client configuration.
func (c *supervisor) kubeconfig(user, server string) ([]byte, error) {
	var data [3]string
	for i, name := range []string{"ca.crt", user + ".crt", user + ".key"} {
		text, err := os.ReadFile(c.keys.file(name))
		if err != nil {
			return nil, err
		}
		data[i] = base64.StdEncoding.EncodeToString(text)
	}
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: oke-sign-test, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: %[3]s, user: {client-certificate-data: %[4]s, client-key-data: %s}}]
contexts: [{name: oke-sign-test, context: {cluster: oke-sign-test, user: %[3]s}}]
current-context: oke-sign-test
`, server, data[0], user, data[1], data[2]), nil
}
