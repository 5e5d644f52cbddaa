package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oke-sign/oke-sign/test/cluster/namespace"
)

// Addresses inside a cluster's own network; every cluster has the same.
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

// inside is a cluster seen from within its namespaces, by their first process.
type inside struct {
	Config
	began    time.Time
	keys     pki
	programs []*program
	node     *node
	end      chan int // takes the exit code
}

// enter is the life of a cluster's first process. It returns the exit code.
func enter(cfg Config) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &inside{Config: cfg, began: time.Now(), keys: pki{cfg.path("pki")}, end: make(chan int, 3)}
	// Whoever started this cluster holds the other end of the pipe. When that
	// process is gone, however it ended, so is the cluster.
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(3, "holder"))
		c.end <- 1
	}()
	go func() {
		code, err := c.live(ctx)
		if err != nil {
			fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		}
		c.end <- code
	}()
	return <-c.end
}

func (c *inside) live(ctx context.Context) (int, error) {
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

// command runs what the cluster was started for.
func (c *inside) command(ctx context.Context) (int, error) {
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

// environ is the environment of a command inside the cluster.
func (cfg Config) environ() []string {
	own := map[string]string{
		"KUBECONFIG":       cfg.path("inside.kubeconfig"),
		"KUBECACHEDIR":     cfg.path("kubectl"), // every cluster has the same address, and other kinds
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

// up brings everything up, in the order in which one part needs another.
func (c *inside) up(ctx context.Context) error {
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

func (c *inside) prepare(ctx context.Context) error {
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
		if err := os.WriteFile(c.inner(user), text, 0o600); err != nil {
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
	c.programs = c.list()
	c.node = &node{inside: c}
	for door, address := range map[string]string{"api": apiServer, "oci": emulator} {
		if err := openDoor(ctx, c.path(door+".sock"), address); err != nil {
			return err
		}
	}
	return c.serveControl(ctx)
}

func (c *inside) inner(user string) string { return c.path(user + ".kubeconfig") }

// kubeconfig is a client configuration with everything in it.
func (c *inside) kubeconfig(user, server string) ([]byte, error) {
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

// list is every process of the control plane, in the order in which they start.
func (c *inside) list() []*program {
	component := func(user string) []string {
		return []string{
			"--kubeconfig=" + c.inner(user), "--authentication-kubeconfig=" + c.inner(user), "--authorization-kubeconfig=" + c.inner(user),
			"--bind-address=127.0.0.1", "--cert-dir=" + c.path("serving", user), "--leader-elect=false", "--profiling=false",
		}
	}
	programs := []*program{
		{name: "etcd", args: []string{
			"--data-dir=" + c.path("etcd"), "--unsafe-no-fsync",
			"--listen-client-urls=" + etcdClients, "--advertise-client-urls=" + etcdClients,
			"--listen-peer-urls=" + etcdPeers, "--initial-advertise-peer-urls=" + etcdPeers, "--initial-cluster=default=" + etcdPeers,
			"--log-level=warn",
		}, ready: etcdReady},
		{name: "kube-apiserver", args: []string{
			"--etcd-servers=" + etcdClients,
			"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port=6443",
			"--endpoint-reconciler-type=none", // an Endpoint may not be a loopback address
			"--service-cluster-ip-range=" + serviceNetwork,
			"--cert-dir=" + c.path("serving", "apiserver"),
			"--tls-cert-file=" + c.keys.file("apiserver.crt"), "--tls-private-key-file=" + c.keys.file("apiserver.key"),
			"--client-ca-file=" + c.keys.file("ca.crt"),
			"--authorization-mode=Node,RBAC", "--allow-privileged=true", "--profiling=false",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + c.keys.file("service-account.pub"),
			"--service-account-signing-key-file=" + c.keys.file("service-account.key"),
			"--requestheader-client-ca-file=" + c.keys.file("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + c.keys.file("front-proxy-client.crt"), "--proxy-client-key-file=" + c.keys.file("front-proxy-client.key"),
		}, ready: c.apiReady},
		{name: "kube-controller-manager", args: append(component("controller-manager"),
			"--use-service-account-credentials=true",
			"--service-account-private-key-file="+c.keys.file("service-account.key"), "--root-ca-file="+c.keys.file("ca.crt"),
			"--allocate-node-cidrs=false",
		)},
		{name: "kube-scheduler", args: component("scheduler")},
		{name: "kwok", args: []string{
			"--config=" + filepath.Join(c.Programs, "kwok-stages.yaml"), "--kubeconfig=" + c.inner("admin"),
			"--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
			"--node-ip=127.0.0.1", "--cidr=10.244.0.0/24", "--server-address=" + kwokServer,
			// Its default is none, and a Node without a lease is taken for dead every 50 s.
			"--node-lease-duration-seconds=40",
		}},
		{name: "oci-emulator", path: filepath.Join(c.Project, "bin", "oci-emulator"), args: []string{
			"--listen=" + emulator, "--home=" + c.path("oci"), "--seed=demo", "--state=" + c.path("oci-state.json"),
		}, ready: c.emulatorReady},
	}
	for _, p := range programs {
		p.log = c.path("log", p.name+".log")
		if p.path == "" {
			p.path = filepath.Join(c.Programs, p.name)
		}
	}
	return programs
}

func (c *inside) program(name string) *program {
	i := slices.IndexFunc(c.programs, func(p *program) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return c.programs[i]
}

func (c *inside) startAll(names ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, name := range names {
			if err := c.program(name).start(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

func etcdReady(ctx context.Context) error {
	_, err := get(ctx, http.DefaultClient, etcdClients+"/health")
	return err
}

func (c *inside) apiReady(ctx context.Context) error {
	client, err := c.adminClient()
	if err != nil {
		return fatal{err}
	}
	defer client.CloseIdleConnections()
	_, err = get(ctx, client, "https://"+apiServer+"/readyz")
	return err
}

// adminClient speaks to the API server as its administrator.
func (c *inside) adminClient() (*http.Client, error) {
	ca, err := os.ReadFile(c.keys.file("ca.crt"))
	if err != nil {
		return nil, err
	}
	certificate, err := tls.LoadX509KeyPair(c.keys.file("admin.crt"), c.keys.file("admin.key"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}}}, nil
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", url, answer.Status, text)
	}
	return text, err
}

// emulatorReady also writes, for the host's side, how its clients find it there.
func (c *inside) emulatorReady(ctx context.Context) error {
	if _, err := get(ctx, http.DefaultClient, "http://"+emulator+"/_emulator/calls"); err != nil {
		return err
	}
	env, err := os.ReadFile(c.path("oci", "env"))
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("oci.env"), bytes.ReplaceAll(env, []byte(emulator), []byte(c.OCI)), 0o644)
}

// emulated finds the OCID of what the emulator's seed has under a name.
func emulated(ctx context.Context, kind, name string) (string, error) {
	text, err := get(ctx, http.DefaultClient, "http://"+emulator+"/_emulator/state")
	if err != nil {
		return "", err
	}
	var state map[string]json.RawMessage
	if err := json.Unmarshal(text, &state); err != nil {
		return "", err
	}
	var all map[string]struct{ Name string }
	if err := json.Unmarshal(state[kind], &all); err != nil {
		return "", fmt.Errorf("the emulator's %s: %w", kind, err)
	}
	for id, one := range all {
		if one.Name == name {
			return id, nil
		}
	}
	return "", fmt.Errorf("the emulator's %s have no %s", kind, name)
}

// policy writes a policy that knows the emulator's key, for whoever wants one.
func (c *inside) policy(ctx context.Context) error {
	key, err := emulated(ctx, "keys", "image-key")
	if err != nil {
		return err
	}
	_, err = c.render("policy.yaml", map[string]any{"Key": key})
	return err
}

// nodes adds the Nodes that kwok pretends and the one whose Pods are processes.
func (c *inside) nodes(ctx context.Context) error {
	if err := c.apply(ctx, "namespaces.yaml", nil); err != nil {
		return err
	}
	if err := c.apply(ctx, "nodes.yaml", map[string]any{"Nodes": []int{0, 1, 2}}); err != nil {
		return err
	}
	if err := c.node.start(); err != nil {
		return err
	}
	if err := c.forwardServices(); err != nil {
		return err
	}
	if err := c.vouchForPods(ctx); err != nil {
		return err
	}
	return c.kubectl(ctx, nil, "wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
}

// gatekeeper is installed as its users install it, by its own chart.
func (c *inside) gatekeeper(ctx context.Context) error {
	here, err := c.render("gatekeeper-values.yaml", nil)
	if err != nil {
		return err
	}
	return c.run(ctx, nil, "helm", "install", "gatekeeper", filepath.Join(c.Programs, "gatekeeper-chart"),
		"--namespace", "gatekeeper-system", "--wait", "--timeout", startUp.String(),
		"--values", filepath.Join(c.Project, "charts", "oke-sign", "gatekeeper-values.yaml"), "--values", here)
}

// okeSign installs the provider and the templates.
func (c *inside) okeSign(ctx context.Context) error {
	for _, do := range []func() error{
		func() error {
			return c.apply(ctx, "provider.yaml", map[string]any{"OCI": c.path("oci"), "Emulator": emulator})
		},
		func() error { return c.templates(ctx) },
		func() error { return c.namespaceLabels(ctx) },
		func() error { return c.policy(ctx) },
		func() error {
			return c.kubectl(ctx, nil, "-n", "oke-sign", "rollout", "status", "deployment/oke-sign", "--timeout="+startUp.String())
		},
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// templates applies the ConstraintTemplates and waits until every process of
// Gatekeeper has them: a constraint made before that counts for nothing.
func (c *inside) templates(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(c.Project, "policies", "*", "template.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("no ConstraintTemplates in policies/*")
	}
	args := []string{"apply"}
	for _, file := range files {
		args = append(args, "-f", file)
	}
	if err := c.kubectl(ctx, nil, args...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startUp)
	defer cancel()
	return until(ctx, func(ctx context.Context) error {
		var out bytes.Buffer
		if err := c.kubectl(ctx, &out, "get", "constrainttemplates", "-o", "json"); err != nil {
			return err
		}
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
				Status   struct {
					Created bool
					ByPod   []struct{ Errors []struct{ Message string } }
				}
			}
		}
		if err := json.Unmarshal(out.Bytes(), &list); err != nil {
			return err
		}
		for _, t := range list.Items {
			for _, pod := range t.Status.ByPod {
				if len(pod.Errors) > 0 {
					return fatal{fmt.Errorf("template %s: %s", t.Metadata.Name, pod.Errors[0].Message)}
				}
			}
			if !t.Status.Created || len(t.Status.ByPod) < 2 { // the webhook's process and the audit's
				return fmt.Errorf("template %s is not taken in yet", t.Metadata.Name)
			}
		}
		return nil
	})
}

// namespaceLabels installs the ValidatingAdmissionPolicy as the chart renders it, and
// waits until the API server enforces it.
func (c *inside) namespaceLabels(ctx context.Context) error {
	var text bytes.Buffer
	err := c.run(ctx, &text, "helm", "template", "oke-sign", filepath.Join(c.Project, "charts", "oke-sign"), "--namespace", "oke-sign",
		"--set", "oci.region=us-ashburn-1", "--show-only", "templates/namespacelabels.yaml")
	if err != nil {
		return err
	}
	file := c.path("namespace-labels.yaml")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return err
	}
	if err := c.kubectl(ctx, nil, "apply", "-f", file); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startUp)
	defer cancel()
	return until(ctx, func(ctx context.Context) error {
		err := c.kubectl(ctx, nil, "patch", "namespace", "default", "--subresource=status", "--type=merge", "--dry-run=server",
			"--patch", `{"metadata":{"labels":{"oke-sign.dev/enforced":"no"}}}`)
		switch {
		case err == nil:
			return errors.New("labels of a namespace still change through its status")
		case strings.Contains(err.Error(), "ValidatingAdmissionPolicy"):
			return nil
		default:
			return err
		}
	})
}

// render fills in one of the manifests and leaves it in the cluster's folder.
func (c *inside) render(name string, values map[string]any) (file string, err error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(manifests, "manifests/"+name)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, values); err != nil {
		return "", err
	}
	file = c.path(name)
	return file, os.WriteFile(file, text.Bytes(), 0o600)
}

func (c *inside) apply(ctx context.Context, name string, values map[string]any) error {
	file, err := c.render(name, values)
	if err != nil {
		return err
	}
	return c.kubectl(ctx, nil, "apply", "-f", file)
}

func (c *inside) kubectl(ctx context.Context, out io.Writer, args ...string) error {
	return c.run(ctx, out, "kubectl", args...)
}

// run runs one of the programs as the administrator; what it says is in the error.
func (c *inside) run(ctx context.Context, out io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Programs, name), args...)
	cmd.Env = c.environ()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if out != nil {
		cmd.Stdout = out
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
