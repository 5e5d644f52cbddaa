package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// traffic creates Pods all the time, 200 a second. Each asks the provider a question
// that Gatekeeper has not cached.
type traffic struct {
	asked, admitted atomic.Int64
	end             func()

	mu      sync.Mutex
	refused []error
}

// busy creates Pods with a signed image until end is called or the test ends.
func busy(t *testing.T) *traffic {
	t.Helper()
	s := guarded(t)
	good := s.signed(t, "good", imageKey)
	create := client(t).CoreV1().Pods(s.name).Create
	tick := time.Tick(5 * time.Millisecond)
	all := new(traffic)
	all.end = repeat(t, func(int, int) {
		<-tick
		pod := podWith(withNewDigest(good, fmt.Sprint(all.asked.Add(1))))
		// The test's context would end too early.
		_, err := create(context.Background(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			all.admitted.Add(1)
			return
		}
		all.mu.Lock()
		defer all.mu.Unlock()
		all.refused = append(all.refused, err)
	})
	all.more(t, "at first", 100)
	return all
}

// more waits until that many more Pods have been admitted.
func (l *traffic) more(t *testing.T, when string, n int64) {
	t.Helper()
	was := l.admitted.Load()
	eventually(t, soon, when+" Pods are admitted", func() error {
		if now := l.admitted.Load(); now < was+n {
			return fmt.Errorf("%d more, want %d; last denial: %s", now-was, n, l.last())
		}
		return nil
	})
}

func (l *traffic) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.refused) == 0 {
		return "none"
	}
	return l.refused[len(l.refused)-1].Error()
}

func (l *traffic) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.refused)
}

// none ends the traffic. It fails the test if a Pod was denied, except for the reasons
// in other.
func (l *traffic) none(t *testing.T, other func(error) bool) {
	t.Helper()
	l.end()
	others := 0
	for _, err := range l.refused {
		if other != nil && other(err) {
			others++
			continue
		}
		t.Errorf("refused: %v", err)
	}
	t.Logf("%d Pods created, %d admitted, %d denied, %d of them for another reason", l.asked.Load(), l.admitted.Load(), len(l.refused), others)
}

// replicas returns the provider's Pods.
func replicas(t *testing.T) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	space{name: "oke-sign"}.get(t, &list, "pods", "-l", "app=oke-sign")
	return list.Items
}

// certificate returns the certificate of a replica, if the CAs of the Provider object
// verify it.
func certificate(t *testing.T, pod corev1.Pod) (*x509.Certificate, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(published(t))
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "oke-sign.oke-sign.svc", MinVersion: tls.VersionTLS13}}
	conn, err := dialer.DialContext(t.Context(), "tcp", pod.Status.PodIP+":8443")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// published returns the CAs of the Provider object.
func published(t *testing.T) []byte {
	t.Helper()
	text := space{}.kubectl(t, "get", "provider", "oke-sign", "-o", "jsonpath={.spec.caBundle}").succeeds(t).stdout
	bundle, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// The provider replaces its certificate and its CA, and no request is denied because of
// it.
func TestServingCertificateRotates(t *testing.T) {
	disturbs(t)
	load := busy(t)
	before, err := certificate(t, replicas(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	space{name: "oke-sign"}.kubectl(t, "patch", "secret", "oke-sign-tls", "--type=json", "-p", `[{"op": "remove", "path": "/data"}]`).succeeds(t)
	eventually(t, soon, "both replicas show another certificate, and the same", func() error {
		var shown []*x509.Certificate
		for _, pod := range replicas(t) {
			now, err := certificate(t, pod)
			if err != nil {
				return err
			}
			shown = append(shown, now)
		}
		if len(shown) != 2 || shown[0].Equal(before) || !shown[0].Equal(shown[1]) {
			return errors.New("not yet")
		}
		return nil
	})
	if n := bytes.Count(published(t), []byte("BEGIN CERTIFICATE")); n < 2 {
		t.Errorf("%d CAs are published, want the one before, too", n)
	}
	load.more(t, "after it", 500)
	load.none(t, nil)
}

// Gatekeeper replaces its CA and its certificate. Gatekeeper has no overlap for its
// certificate: until the kubelet delivers it, the API server does not accept
// Gatekeeper. But no request that reaches the provider is denied.
func TestGatekeepersCARotates(t *testing.T) {
	disturbs(t)
	load := busy(t)
	const webhooks = "validatingwebhookconfiguration/gatekeeper-validating-webhook-configuration"
	ca := func() string {
		return space{}.kubectl(t, "get", webhooks, "-o", `jsonpath={.webhooks[?(@.name=="validation.gatekeeper.sh")].clientConfig.caBundle}`).succeeds(t).stdout
	}
	before := ca()
	space{name: "gatekeeper-system"}.kubectl(t, "patch", "secret", "gatekeeper-webhook-server-cert", "--type=json", "-p", `[{"op": "remove", "path": "/data"}]`).succeeds(t)
	eventually(t, soon, "the webhook has another CA", func() error {
		if now := ca(); now == before || now == "" {
			return errors.New("not yet")
		}
		return nil
	})
	load.more(t, "after it", 1000)
	// New replicas start with the new CA only.
	restart(t)
	load.more(t, "by new replicas", 500)
	load.none(t, func(err error) bool { return strings.Contains(err.Error(), "failed calling webhook") })
}

// restart replaces all replicas of the provider one by one.
func restart(t *testing.T) {
	t.Helper()
	before := containers(t, "oke-sign")
	space{name: "oke-sign"}.kubectl(t, "rollout", "restart", "deployment/oke-sign").succeeds(t)
	eventually(t, soon, "all replicas are replaced", func() error {
		now := containers(t, "oke-sign")
		if len(now) != len(before) || slices.ContainsFunc(now, func(name string) bool { return slices.Contains(before, name) }) {
			return fmt.Errorf("%q before, %q now", before, now)
		}
		return nil
	})
}

// Replacing replicas denies no request: each replica answers until no more requests
// come.
func TestRollingRestart(t *testing.T) {
	disturbs(t)
	load := busy(t)
	restart(t)
	load.none(t, nil)
}

// A replica answers the questions that came before its signal to stop, even if OCI is
// slow.
func TestStoppedInTheMiddle(t *testing.T) {
	disturbs(t)
	s := guarded(t)
	create := client(t).CoreV1().Pods(s.name).Create
	var images []string
	for i := range 40 {
		images = append(images, s.signed(t, fmt.Sprint("image-", i), imageKey))
	}
	fault(t, ocitest.Fault{Kind: ocitest.Latency, Operation: "artifacts.*", Delay: ocitest.Duration(800 * time.Millisecond)})
	// Stop only one replica: a Service without replicas accepts no question.
	space{name: "oke-sign"}.kubectl(t, "delete", "pod", replicas(t)[0].Name, "--wait=false").succeeds(t)
	var asking sync.WaitGroup
	tick := time.Tick(100 * time.Millisecond) // keeps eight questions in progress
	for _, image := range images {
		asking.Go(func() {
			if _, err := create(t.Context(), podWith(image), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
		<-tick
	}
	asking.Wait()
}

// A killed replica loses only the questions in progress, and those that the Service
// sends to it until the Service knows.
func TestOneReplicaIsKilled(t *testing.T) {
	disturbs(t)
	load := busy(t)
	control(t, "kill", containers(t, "oke-sign")[0])
	load.more(t, "beside it", 200)
	eventually(t, soon, "the cluster is whole again", func() error { return whole(t) })
	lost := load.count()
	load.more(t, "after it", 500)
	load.end()
	if now := load.count(); now != lost {
		t.Errorf("%d more were denied after that", now-lost)
	}
	for _, err := range load.refused {
		if !strings.Contains(err.Error(), ": no-answer: ") {
			t.Errorf("refused: %v", err)
		}
	}
	t.Logf("%d Pods created, %d denied without an answer, the last: %s", load.asked.Load(), len(load.refused), load.last())
}
