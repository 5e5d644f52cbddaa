package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
)

// controlPlane lists the processes of the control plane, in the order in which they
// start.
func (c *supervisor) controlPlane() []*program {
	component := func(user string) []string {
		return []string{
			"--kubeconfig=" + c.kubeconfigPath(user), "--authentication-kubeconfig=" + c.kubeconfigPath(user), "--authorization-kubeconfig=" + c.kubeconfigPath(user),
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
			"--config=" + filepath.Join(c.Programs, "kwok-stages.yaml"), "--kubeconfig=" + c.kubeconfigPath("admin"),
			"--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
			"--node-ip=127.0.0.1", "--cidr=10.244.0.0/24", "--server-address=" + kwokServer,
			// By default kwok writes no lease. A Node without one is considered dead
			// every 50 s.
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

func (c *supervisor) program(name string) *program {
	i := slices.IndexFunc(c.programs, func(p *program) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return c.programs[i]
}

func (c *supervisor) startAll(names ...string) func(context.Context) error {
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

func (c *supervisor) apiReady(ctx context.Context) error {
	client, err := c.adminClient()
	if err != nil {
		return permanent{err}
	}
	defer client.CloseIdleConnections()
	_, err = get(ctx, client, "https://"+apiServer+"/readyz")
	return err
}

// adminClient returns a client of the API server with the administrator's certificate.
func (c *supervisor) adminClient() (*http.Client, error) {
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

// emulatorReady checks the emulator. It also writes oci.env, the settings for clients
// on the host.
func (c *supervisor) emulatorReady(ctx context.Context) error {
	if _, err := get(ctx, http.DefaultClient, "http://"+emulator+"/_emulator/calls"); err != nil {
		return err
	}
	env, err := os.ReadFile(c.path("oci", "env"))
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("oci.env"), bytes.ReplaceAll(env, []byte(emulator), []byte(c.OCI)), 0o644)
}
