package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/oke-sign/oke-sign/test/cluster/identity"
	"github.com/oke-sign/oke-sign/test/cluster/kubelet"
	"github.com/oke-sign/oke-sign/test/cluster/services"
)

// node is the Node whose Pods are processes. It can be stopped and started.
type node struct {
	*supervisor
	mu      sync.Mutex
	kubelet *kubelet.Kubelet // nil while it is stopped
	cancel  context.CancelFunc
	ended   chan error
}

// The name of that Node, and the addresses of its Pods.
const (
	processNode      = "processes"
	processAddresses = "10.244.1.0/24"
)

// controllerClient returns a client with limits for controllers, which send more
// requests than a person.
func (c *supervisor) controllerClient() (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfigPath("admin"))
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 100, 200
	return kubernetes.NewForConfig(config)
}

// logger returns a logger that appends to a log of the cluster. The file stays open
// until the process ends.
func (c *supervisor) logger(name string) (*slog.Logger, error) {
	log, err := os.OpenFile(c.path("log", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return slog.New(slog.NewTextHandler(log, nil)), nil
}

// forwardServices makes Services reachable for the lifetime of the cluster.
func (c *supervisor) forwardServices() error {
	client, err := c.controllerClient()
	if err != nil {
		return err
	}
	log, err := c.logger("services")
	if err != nil {
		return err
	}
	go func() {
		err := services.Run(context.Background(), services.Config{
			Client: client, Hosts: c.path("hosts"), API: netip.MustParseAddrPort(apiServer), Log: log,
		})
		log.Error("ended", "err", err)
	}()
	return nil
}

// serveWorkloadIdentity makes this an enhanced cluster of OKE, the one in the
// emulator's seed. Where Pods reach the API server, they also get OCI tokens. It serves
// for the lifetime of the cluster.
func (c *supervisor) serveWorkloadIdentity(ctx context.Context) error {
	client, err := c.controllerClient()
	if err != nil {
		return err
	}
	log, err := c.logger("identity")
	if err != nil {
		return err
	}
	id, err := emulatorOCID(ctx, "clusters", "demo")
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(kubernetesIP, identityPort))
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           identity.Handler(identity.Config{Client: client, Emulator: "http://" + emulator, Cluster: id, Log: log}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go func() {
		log.Error("ended", "err", server.ServeTLS(listener, c.keys.file("identity.crt"), c.keys.file("identity.key")))
	}()
	return nil
}

func (n *node) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kubelet != nil {
		return errors.New("the kubelet runs already")
	}
	client, err := n.controllerClient()
	if err != nil {
		return err
	}
	log, err := n.logger("kubelet")
	if err != nil {
		return err
	}
	registries, err := n.registries()
	if err != nil {
		return err
	}
	n.kubelet = kubelet.New(kubelet.Config{
		Client: client,
		Node:   processNode,
		Prefix: netip.MustParsePrefix(processAddresses),
		Dir:    n.path("kubelet"),
		Programs: map[string]kubelet.Program{
			"openpolicyagent/gatekeeper": {Path: filepath.Join(n.Programs, "gatekeeper"), Args: gatekeeperArgs},
			"oke-sign-provider":          {Path: filepath.Join(n.Project, "bin", "oke-sign-provider")},
			// The name in its chart. Nothing outside this machine can be pulled.
			"ghcr.io/oke-sign/oke-sign-provider": {Path: filepath.Join(n.Project, "bin", "oke-sign-provider")},
		},
		Registries: registries,
		Log:        log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan error, 1)
	go func() {
		err := n.kubelet.Run(ctx)
		if err != nil {
			log.Error("ended", "err", err)
		}
		n.ended <- err
	}()
	return nil
}

// registries returns the transport to the emulated OCI Registry. No other registry is
// reachable.
func (n *node) registries() (http.RoundTripper, error) {
	ca, err := os.ReadFile(n.path("oci", "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the emulator's CA is not PEM")
	}
	proxy := &url.URL{Scheme: "http", Host: emulator}
	return &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}}, nil
}

// gatekeeperArgs makes Gatekeeper listen on its Pod's address instead of every address.
// Where it takes only a port, it gets a port that no other Pod has.
func gatekeeperArgs(pod *corev1.Pod, _ *corev1.Container, args []string) []string {
	ip := pod.Status.PodIP
	port := "20" + fmt.Sprintf("%03s", ip[strings.LastIndexByte(ip, '.')+1:])
	return append(args, "--host="+ip, "--health-addr="+ip+":9090", "--prometheus-port="+port)
}

// stop ends every container of the Node without telling the API server, like a machine
// that is switched off.
func (n *node) stop(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kubelet == nil {
		return nil
	}
	n.cancel()
	select {
	case err := <-n.ended:
		n.kubelet = nil
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// containers returns the running containers, and whether the kubelet runs.
func (n *node) containers() (list []kubelet.Process, running bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kubelet == nil {
		return nil, false
	}
	return n.kubelet.Processes(), true
}

func (n *node) processes() []Process {
	containers, running := n.containers()
	list := []Process{{Name: "kubelet", State: "stopped", Log: n.path("log", "kubelet.log")}}
	if running {
		list[0].State = "running"
	}
	for _, p := range containers {
		list = append(list, Process{Name: containerName(p), State: "running", PID: p.PID, Log: p.Log})
	}
	return list
}

func containerName(p kubelet.Process) string {
	return p.Namespace + "/" + p.Pod + "/" + p.Container
}

// act sends a signal to a container. The kubelet starts a container that ends again.
func (n *node) act(action, name string) error {
	signal, ok := map[string]syscall.Signal{
		ActionStop: syscall.SIGTERM, ActionKill: syscall.SIGKILL, ActionPause: syscall.SIGSTOP, ActionResume: syscall.SIGCONT,
	}[action]
	if !ok {
		return fmt.Errorf("cannot %s a container; delete its Pod, or stop it", action)
	}
	containers, _ := n.containers()
	for _, p := range containers {
		if containerName(p) == name {
			return syscall.Kill(p.PID, signal)
		}
	}
	return fmt.Errorf("no process is named %s", name)
}
