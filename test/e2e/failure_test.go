package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"

	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// guarded returns a space whose Pods must have signatures by image-key.
func guarded(t *testing.T) space {
	t.Helper()
	s := newSpace(t)
	s.enforce(t, constraint{kind: policies.SignedImages, on: pods, parameters: signedBy("", imageKey)})
	return s
}

// A Deployment created during an OCI failure comes up after it, without any action.
func TestOCIFailsForAWhile(t *testing.T) {
	disturbs(t)
	s := guarded(t)
	for _, test := range []struct {
		name, says string
		fault      ocitest.Fault
	}{
		{"it throttles", "429 TooManyRequests", ocitest.Fault{Kind: ocitest.Status, Operation: "artifacts.*", Status: http.StatusTooManyRequests}},
		{"it answers with errors", "503 ServiceUnavailable", ocitest.Fault{Kind: ocitest.Status, Operation: "artifacts.*", Status: http.StatusServiceUnavailable}},
		{"it is unreachable", "ListContainerImageSignatures", ocitest.Fault{Kind: ocitest.Unreachable, Host: "*"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := slug(test.name)
			image := s.signed(t, name, imageKey)
			fault(t, test.fault)
			s.apply(t, nginx(name, image)).succeeds(t)
			s.fails(t, "ReplicaSet", name, "containers/nginx: no-answer: could not find out whether it is signed, from provider oke-sign: ", test.says)
			s.ready(t, soon, name, "0/3")
			clearFaults(t)
			s.ready(t, soon, name, "3/3")
		})
	}
	// A lookup that outlasts its request continues, and its result is cached until the
	// controller asks again.
	t.Run("it takes 3 s for every answer", func(t *testing.T) {
		image := s.signed(t, "slow", imageKey)
		fault(t, ocitest.Fault{Kind: ocitest.Latency, Delay: ocitest.Duration(3 * time.Second)})
		s.apply(t, nginx("slow", image)).succeeds(t)
		s.fails(t, "ReplicaSet", "slow", "containers/nginx: no-answer: ", "no answer from OCI")
		s.ready(t, soon, "slow", "3/3")
	})
}

// No unsigned image is admitted, even if the deciding processes are killed during a
// burst of Pods.
func TestKilledDuringABurst(t *testing.T) {
	disturbs(t)
	s := guarded(t)
	good, bad := s.signed(t, "good", imageKey), s.push(t, "bad")
	stored := s.stored(t)
	s.apply(t, nginx("unsigned", bad)).succeeds(t)

	var admitted, unsigned, unknown atomic.Int64
	end := repeat(t, func(worker, round int) {
		tag := fmt.Sprintf("%d-%d", worker, round)
		r := s.applyAll(t, workload("Pod", "bad-"+tag, withNewDigest(bad, tag), nil), workload("Pod", "good-"+tag, withNewDigest(good, tag), nil))
		admitted.Add(int64(strings.Count(r.stdout, " created")))
		unsigned.Add(int64(strings.Count(r.stderr, ": unsigned: ")))
		unknown.Add(int64(strings.Count(r.stderr, ": no-answer: ")))
	})
	kills := 0
	eventually(t, soon, "Pods are created in every state of the provider", func() error {
		if kills%3 == 2 {
			space{name: "oke-sign"}.kubectl(t, "delete", "pods", "--all", "--wait=false").succeeds(t)
		}
		for _, name := range containers(t, "oke-sign") {
			_ = cluster("kill", name) // fails if it has ended
		}
		kills++
		if kills < 6 || admitted.Load() < 10 || unsigned.Load() < 10 || unknown.Load() < 10 {
			return fmt.Errorf("%d rounds of kills: %d Pods admitted, %d denied as unsigned, %d without an answer", kills, admitted.Load(), unsigned.Load(), unknown.Load())
		}
		return nil
	})
	end()
	t.Logf("%d rounds of kills: %d Pods admitted, %d denied as unsigned, %d without an answer", kills, admitted.Load(), unsigned.Load(), unknown.Load())
	s.apply(t, nginx("signed", good)).succeeds(t)
	s.ready(t, soon, "signed", "3/3")
	s.fails(t, "ReplicaSet", "unsigned-", "containers/nginx: unsigned: ")
	_, digest, _ := strings.Cut(good, "@")
	for _, image := range stored() {
		if !strings.HasSuffix(image, digest) {
			t.Errorf("a Pod with an unsigned image was admitted: %s", image)
		}
	}
}

// withNewDigest returns the same image under another reference. Gatekeeper caches
// answers by reference, so it asks the provider about each.
func withNewDigest(image, tag string) string {
	return strings.Replace(image, "@", ":"+tag+"@", 1)
}

// When the provider hangs, Gatekeeper denies early enough to give this reason.
// Otherwise the API server would deny, and could only say that Gatekeeper did not
// answer.
func TestProviderHangs(t *testing.T) {
	disturbs(t)
	s := guarded(t)
	good := s.signed(t, "good", imageKey)
	pause(t, "oke-sign")
	s.kubectl(t, "run", "pod", "--image="+good).
		fails(t, denies, "containers/pod: no-answer: could not find out whether it is signed, from provider oke-sign: ")
}

// The same holds although Gatekeeper waits for one provider after the other.
func TestBothProvidersHang(t *testing.T) {
	disturbs(t)
	s := newSpace(t)
	good := s.signed(t, "good", imageKey)
	scans := s.deaf(t, 1)
	s.enforce(t,
		constraint{kind: policies.SignedImages, on: pods, parameters: signedBy("", imageKey)},
		constraint{kind: policies.ScannedImages, on: pods, parameters: "{provider: " + scans + "}"},
	)
	pause(t, "oke-sign")
	s.kubectl(t, "run", "pod", "--image="+good).fails(t, denies,
		"containers/pod: no-answer: could not find out whether it is signed, from provider oke-sign: ",
		"containers/pod: no-answer: could not find out what scans say, from provider "+scans+": ",
	)
}

// deaf creates a Provider that accepts connections and never answers, with the given
// time-out of Gatekeeper. It returns the Provider's name.
func (s space) deaf(t *testing.T, timeout int) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	ca := s.kubectl(t, "get", "provider", "oke-sign", "-o", "jsonpath={.spec.caBundle}").succeeds(t).stdout
	s.apply(t, fmt.Sprintf(`
apiVersion: externaldata.gatekeeper.sh/v1beta1
kind: Provider
metadata: {name: %s}
spec: {url: "https://%s/", timeout: %d, caBundle: %s}
`, s.name, listener.Addr(), timeout, ca)).succeeds(t)
	t.Cleanup(func() { s.kubectl(t, "delete", "provider", s.name).succeeds(t) })
	eventually(t, soon, "Gatekeeper knows provider "+s.name, func() error {
		active := s.kubectl(t, "get", "provider", s.name, "-o", "jsonpath={.status.byPod[*].active}").succeeds(t).stdout
		if strings.Count(active, "true") < 2 { // one for admission, one for the audit
			return fmt.Errorf("active: %q", active)
		}
		return nil
	})
	return s.name
}

// With failurePolicy Ignore, Gatekeeper's default, a request that outlasts the
// webhook's time-out is admitted. So our values set Fail, and a Provider's time-out
// must be below the webhook's.
func TestIgnoreAdmitsDuringAStall(t *testing.T) {
	disturbs(t)
	s := newSpace(t)
	unsigned := s.push(t, "unsigned")
	s.enforce(t, constraint{kind: policies.SignedImages, on: pods, parameters: signedBy(", provider: "+s.deaf(t, 4), imageKey)})
	s.kubectl(t, "run", "before", "--image="+unsigned).fails(t, denies, "containers/before: no-answer: ")

	const name = "validatingwebhookconfiguration/gatekeeper-validating-webhook-configuration"
	set := func(policy string, seconds int32) {
		s.kubectl(t, "patch", name, "-p", fmt.Sprintf(
			`{"webhooks": [{"name": "validation.gatekeeper.sh", "failurePolicy": %q, "timeoutSeconds": %d}]}`, policy, seconds)).succeeds(t)
	}
	var config admissionv1.ValidatingWebhookConfiguration
	s.get(t, &config, name)
	was := config.Webhooks[slices.IndexFunc(config.Webhooks, func(w admissionv1.ValidatingWebhook) bool { return w.Name == "validation.gatekeeper.sh" })]
	if *was.FailurePolicy != admissionv1.Fail {
		t.Fatalf("the webhook's failurePolicy is %s; want Fail", *was.FailurePolicy)
	}
	t.Cleanup(func() { set(string(*was.FailurePolicy), *was.TimeoutSeconds) })

	set("Ignore", 1)
	eventually(t, soon, "an unsigned image is admitted", func() error {
		return s.kubectl(t, "run", "ignored", "--image="+unsigned).err
	})
	s.running(t, "ignored")
	set("Fail", 1)
	n := 0
	eventually(t, soon, "the API server denies a request that Gatekeeper does not review in time", func() error {
		n++
		r := s.kubectl(t, "run", fmt.Sprintf("late-%d", n), "--image="+unsigned)
		if r.err == nil {
			return errors.New("admitted")
		}
		r.says(t, `failed calling webhook "validation.gatekeeper.sh"`, "deadline exceeded")
		return nil
	})
}
