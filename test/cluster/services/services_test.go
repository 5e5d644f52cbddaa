package services_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/oke-sign/oke-sign/test/cluster/kubelet/kubetest"
	"github.com/oke-sign/oke-sign/test/cluster/services"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// end is an endpoint of an EndpointSlice.
func end(address string, conditions discoveryv1.EndpointConditions) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{Addresses: []string{address}, Conditions: conditions}
}

func service(name, ip string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, Ports: ports},
	}
}

func slice(of string, port discoveryv1.EndpointPort, ends ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: of + "-slice", Labels: map[string]string{discoveryv1.LabelServiceName: of}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{port},
		Endpoints:   ends,
	}
}

func on(name string, port int32) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: &name, Port: &port, Protocol: ptr.To(corev1.ProtocolTCP)}
}

func TestForwards(t *testing.T) {
	var (
		https     = corev1.ServicePort{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP}
		ready     = discoveryv1.EndpointConditions{Ready: ptr.To(true)}
		unready   = discoveryv1.EndpointConditions{Ready: ptr.To(false)}
		draining  = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true), Terminating: ptr.To(true)}
		elsewhere = func(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
			s.Namespace = "other"
			return s
		}
		six = func(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
			s.AddressType = discoveryv1.AddressTypeIPv6
			return s
		}
	)
	for name, c := range map[string]struct {
		service *corev1.Service
		slices  []*discoveryv1.EndpointSlice
		want    []string // endpoints of 127.96.0.9:443; empty if nothing listens there
	}{
		"a ready endpoint": {
			service("web", "127.96.0.9", https),
			[]*discoveryv1.EndpointSlice{slice("web", on("https", 8443), end("10.244.0.3", ready), end("10.244.0.2", ready), end("10.244.0.4", unready))},
			[]string{"10.244.0.2:8443", "10.244.0.3:8443"},
		},
		"an endpoint without conditions is ready": {
			service("web", "127.96.0.9", https),
			[]*discoveryv1.EndpointSlice{slice("web", on("https", 8443), end("10.244.0.2", discoveryv1.EndpointConditions{}))},
			[]string{"10.244.0.2:8443"},
		},
		"an ending endpoint, if there is no other": {
			service("web", "127.96.0.9", https),
			[]*discoveryv1.EndpointSlice{slice("web", on("https", 8443), end("10.244.0.2", draining), end("10.244.0.3", unready))},
			[]string{"10.244.0.2:8443"},
		},
		"no ending endpoint beside a ready one": {
			service("web", "127.96.0.9", https),
			[]*discoveryv1.EndpointSlice{slice("web", on("https", 8443), end("10.244.0.2", draining), end("10.244.0.3", ready))},
			[]string{"10.244.0.3:8443"},
		},
		"an endpoint in two slices is one": {
			service("web", "127.96.0.9", https),
			[]*discoveryv1.EndpointSlice{slice("web", on("https", 8443), end("10.244.0.2", ready)), slice("web", on("https", 8443), end("10.244.0.2", ready))},
			[]string{"10.244.0.2:8443"},
		},
		"nothing is ready": {
			service("web", "127.96.0.9", https),
			[]*discoveryv1.EndpointSlice{slice("web", on("https", 8443), end("10.244.0.2", unready))}, nil,
		},
		"no slice": {service("web", "127.96.0.9", https), nil, nil},
		"the slice of another port": {
			service("web", "127.96.0.9", https),
			[]*discoveryv1.EndpointSlice{slice("web", on("metrics", 8443), end("10.244.0.2", ready))}, nil,
		},
		"the slice of another service": {
			service("web", "127.96.0.9", https),
			[]*discoveryv1.EndpointSlice{slice("db", on("https", 8443), end("10.244.0.2", ready))}, nil,
		},
		"the slice of another namespace": {
			service("web", "127.96.0.9", https),
			[]*discoveryv1.EndpointSlice{elsewhere(slice("web", on("https", 8443), end("10.244.0.2", ready)))}, nil,
		},
		"the slice of another family": {
			service("web", "127.96.0.9", https),
			[]*discoveryv1.EndpointSlice{six(slice("web", on("https", 8443), end("10.244.0.2", ready)))}, nil,
		},
		"a headless service": {
			service("web", corev1.ClusterIPNone, https),
			[]*discoveryv1.EndpointSlice{slice("web", on("https", 8443), end("10.244.0.2", ready))}, nil,
		},
		"a UDP port": {
			service("web", "127.96.0.9", corev1.ServicePort{Name: "https", Port: 443, Protocol: corev1.ProtocolUDP}),
			[]*discoveryv1.EndpointSlice{slice("web", on("https", 8443), end("10.244.0.2", ready))}, nil,
		},
		"the API server": {service("kubernetes", "127.96.0.9", https), nil, []string{"127.0.0.1:6443"}},
	} {
		t.Run(name, func(t *testing.T) {
			want := map[string][]string{}
			if c.want != nil {
				want["127.96.0.9:443"] = c.want
			}
			got := map[string][]string{}
			for at, ends := range services.Forwards([]*corev1.Service{c.service}, c.slices, netip.MustParseAddrPort("127.0.0.1:6443")) {
				for _, e := range ends {
					got[at.String()] = append(got[at.String()], e.String())
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	got := services.Hosts([]*corev1.Service{
		service("web", "127.96.0.9"),
		service("headless", corev1.ClusterIPNone),
		service("pending", ""),
		service("alias", ""),
	}, []*discoveryv1.EndpointSlice{slice("headless", on("", 1),
		end("10.244.0.2", discoveryv1.EndpointConditions{Ready: ptr.To(true)}), end("10.244.0.3", discoveryv1.EndpointConditions{Ready: ptr.To(false)}))})
	want := `127.0.0.1 localhost
::1 localhost
10.244.0.2 headless.default.svc.cluster.local headless.default.svc headless.default
127.96.0.9 web.default.svc.cluster.local web.default.svc web.default
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// machine is a cluster's network in which package services runs.
type machine struct {
	client kubernetes.Interface
	hosts  string
}

func TestRun(t *testing.T) {
	config := kubetest.API(t)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{client: client, hosts: filepath.Join(t.TempDir(), "hosts")}
	if err := os.WriteFile(m.hosts, []byte(strings.Repeat("127.0.0.1 what.was.there\n", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(m.hosts)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- services.Run(ctx, services.Config{Client: client, Hosts: m.hosts, API: netip.MustParseAddrPort(u.Host), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	}()
	t.Cleanup(func() { cancel() })

	t.Run("connections go to the endpoints in turn", m.turns)
	t.Run("an endpoint that accepts no connection breaks the client's connection", m.costs)
	t.Run("without a ready endpoint connections are refused", m.refuses)
	t.Run("one side can end before the other", m.halves)
	t.Run("a reset comes through", m.resets)
	t.Run("a connection continues when its endpoint leaves the Service", m.outlives)
	t.Run("a Service without endpoints is ignored", m.leaves)
	t.Run("an address in use is taken when it is free", m.retries)
	t.Run("the API server is a Service", func(t *testing.T) {
		kubetest.Eventually(t, func() error {
			conn, err := tls.Dial("tcp", "127.96.0.1:443", &tls.Config{InsecureSkipVerify: true}) // the test only checks the name
			if err != nil {
				return err
			}
			return conn.Close()
		})
	})
	t.Run("names come and go, and the hosts file keeps its inode", func(t *testing.T) {
		m.create(t, "named", "127.96.0.90", nil)
		m.awaitHosts(t, func(s string) bool {
			return strings.Contains(s, "\n127.96.0.90 named.default.svc.cluster.local named.default.svc named.default\n") && !strings.Contains(s, "what.was.there")
		})
		if err := client.CoreV1().Services("default").Delete(t.Context(), "named", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		m.awaitHosts(t, func(s string) bool { return !strings.Contains(s, "named") && strings.HasSuffix(s, "\n") })
		if after, err := os.Stat(m.hosts); err != nil || !os.SameFile(before, after) {
			t.Errorf("the hosts file is another file: %v", err)
		}
	})
	t.Run("connections end with Run", func(t *testing.T) {
		echo(t, "10.244.0.70:9000", "a")
		m.create(t, "ends", "127.96.0.70", []string{"10.244.0.70"})
		conn := dial(t, "127.96.0.70:80")
		if got := say(t, conn, "x"); got != "a x" {
			t.Errorf("got %q", got)
		}
		cancel()
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the connection continues")
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if conn, err := net.Dial("tcp", "127.96.0.70:80"); err == nil {
			conn.Close()
			t.Error("the port is still open")
		}
	})
}

func (m *machine) awaitHosts(t *testing.T, wanted func(string) bool) {
	t.Helper()
	kubetest.Eventually(t, func() error {
		b, err := os.ReadFile(m.hosts)
		if err != nil || !wanted(string(b)) {
			return fmt.Errorf("hosts: %s, %w", b, err)
		}
		return nil
	})
}

// create creates a Service on port 80 with the given endpoints at port 9000. Without
// endpoints it creates no EndpointSlice.
func (m *machine) create(t *testing.T, name, ip string, ends []string) {
	t.Helper()
	s := service(name, ip, corev1.ServicePort{Port: 80, Protocol: corev1.ProtocolTCP})
	if _, err := m.client.CoreV1().Services("default").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if ends == nil {
		return
	}
	if _, err := m.client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), m.slice(name, ends), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) slice(name string, ready []string) *discoveryv1.EndpointSlice {
	var ends []discoveryv1.Endpoint
	for _, e := range ready {
		ends = append(ends, end(e, discoveryv1.EndpointConditions{Ready: ptr.To(true)}))
	}
	return slice(name, on("", 9000), ends...)
}

func (m *machine) change(t *testing.T, name string, ends []string) {
	t.Helper()
	if _, err := m.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), m.slice(name, ends), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// echo returns each line with its name in front, and says goodbye at the end.
func echo(t *testing.T, at, name string) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					fmt.Fprintf(conn, "%s %s\n", name, lines.Text())
				}
				if lines.Err() == nil {
					fmt.Fprintf(conn, "goodbye\n")
				}
			}()
		}
	}()
}

// dial connects as soon as the address is listened to.
func dial(t *testing.T, to string) *net.TCPConn {
	t.Helper()
	var conn net.Conn
	kubetest.Eventually(t, func() (err error) {
		conn, err = net.Dial("tcp", to)
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

func say(t *testing.T, conn net.Conn, line string) string {
	t.Helper()
	if _, err := fmt.Fprintln(conn, line); err != nil {
		t.Fatal(err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(answer, "\n")
}

func (m *machine) turns(t *testing.T) {
	echo(t, "10.244.0.10:9000", "a")
	echo(t, "10.244.0.11:9000", "b")
	m.create(t, "turns", "127.96.0.10", []string{"10.244.0.10", "10.244.0.11"})
	heard := map[string]int{}
	for range 6 {
		heard[say(t, dial(t, "127.96.0.10:80"), "x")]++
	}
	if diff := cmp.Diff(map[string]int{"a x": 3, "b x": 3}, heard); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func (m *machine) costs(t *testing.T) {
	echo(t, "10.244.0.21:9000", "b")
	m.create(t, "costs", "127.96.0.20", []string{"10.244.0.20"})
	kubetest.Eventually(t, func() error {
		conn := dial(t, "127.96.0.20:80")
		if _, err := fmt.Fprintln(conn, "x"); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			return err
		}
		if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("read: %w, want a reset", err)
		}
		return nil
	})
	m.change(t, "costs", []string{"10.244.0.21"})
	kubetest.Eventually(t, func() error {
		conn := dial(t, "127.96.0.20:80")
		if _, err := fmt.Fprintln(conn, "x"); err != nil {
			return err
		}
		_, err := bufio.NewReader(conn).ReadString('\n')
		return err
	})
}

func (m *machine) refused(t *testing.T, at string) {
	t.Helper()
	kubetest.Eventually(t, func() error {
		conn, err := net.Dial("tcp", at)
		if err == nil {
			conn.Close()
			return errors.New("connected")
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		return nil
	})
}

func (m *machine) refuses(t *testing.T) {
	echo(t, "10.244.0.30:9000", "a")
	m.create(t, "refuses", "127.96.0.30", []string{"10.244.0.30"})
	say(t, dial(t, "127.96.0.30:80"), "x")
	m.change(t, "refuses", []string{})
	m.refused(t, "127.96.0.30:80")
	m.change(t, "refuses", []string{"10.244.0.30"})
	say(t, dial(t, "127.96.0.30:80"), "x")
}

func (m *machine) halves(t *testing.T) {
	echo(t, "10.244.0.40:9000", "a")
	m.create(t, "halves", "127.96.0.40", []string{"10.244.0.40"})
	conn := dial(t, "127.96.0.40:80")
	if _, err := fmt.Fprintln(conn, "x"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if want := "a x\ngoodbye\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func (m *machine) resets(t *testing.T) {
	l, err := net.Listen("tcp", "10.244.0.45:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m.create(t, "resets", "127.96.0.45", []string{"10.244.0.45"})
	conn := dial(t, "127.96.0.45:80")
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
}

func (m *machine) outlives(t *testing.T) {
	echo(t, "10.244.0.50:9000", "a")
	m.create(t, "outlives", "127.96.0.50", []string{"10.244.0.50"})
	conn := dial(t, "127.96.0.50:80")
	say(t, conn, "x")
	m.change(t, "outlives", []string{})
	m.refused(t, "127.96.0.50:80")
	if got := say(t, conn, "y"); got != "a y" {
		t.Errorf("got %q", got)
	}
}

func (m *machine) leaves(t *testing.T) {
	echo(t, "127.96.0.60:80", "self")
	m.create(t, "left", "127.96.0.60", nil)
	// The Service was seen once its name is in the hosts file.
	m.awaitHosts(t, func(s string) bool { return strings.Contains(s, "127.96.0.60 left.") })
	if got := say(t, dial(t, "127.96.0.60:80"), "x"); got != "self x" {
		t.Errorf("got %q", got)
	}
}

func (m *machine) retries(t *testing.T) {
	l, err := net.Listen("tcp", "127.96.0.65:80")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, "10.244.0.65:9000", "a")
	m.create(t, "retries", "127.96.0.65", []string{"10.244.0.65"})
	m.awaitHosts(t, func(s string) bool { return strings.Contains(s, "127.96.0.65 retries.") })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := say(t, dial(t, "127.96.0.65:80"), "x"); got != "a x" {
		t.Errorf("got %q", got)
	}
}
