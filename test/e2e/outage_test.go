package e2e_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// fault makes OCI fail for all clients until clearFaults or the end of the test.
func fault(t *testing.T, f ocitest.Fault) {
	t.Helper()
	if err := cloud.SetFault(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clearFaults(t) })
}

// clearFaults lets OCI work again.
func clearFaults(t *testing.T) {
	t.Helper()
	if err := cloud.ClearFaults(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// scaleProvider sets the provider's replicas and waits for them.
func scaleProvider(t *testing.T, replicas string) {
	t.Helper()
	s := space{name: "oke-sign"}
	s.kubectl(t, "scale", "deployment/oke-sign", "--replicas="+replicas).succeeds(t)
	if replicas == "0" {
		s.kubectl(t, "wait", "pod", "-l", "app=oke-sign", "--for=delete", "--timeout=50s").succeeds(t)
		return
	}
	s.kubectl(t, "rollout", "status", "deployment/oke-sign", "--timeout=50s").succeeds(t)
}

// Without an answer about its image, no Pod starts. Errors are not cached, so the
// first try after an outage succeeds.
func TestNoAnswerIsNoYes(t *testing.T) {
	s := newSpace(t)
	s.enforce(t, constraint{kind: policies.SignedImages, on: pods, parameters: signedBy("", imageKey)})
	for _, outage := range []struct {
		name       string
		begin, end func(*testing.T)
	}{
		{"OCI is unreachable", func(t *testing.T) { fault(t, ocitest.Fault{Kind: ocitest.Unreachable, Host: "*"}) }, clearFaults},
		{"OCI has an internal error", func(t *testing.T) {
			fault(t, ocitest.Fault{Kind: ocitest.Status, Operation: "artifacts.*", Status: http.StatusInternalServerError, Code: "InternalServerError"})
		}, clearFaults},
		{"OCI never answers", func(t *testing.T) { fault(t, ocitest.Fault{Kind: ocitest.Hang, Operation: "artifacts.*"}) }, clearFaults},
		{"the provider is gone", func(t *testing.T) {
			t.Cleanup(func() { scaleProvider(t, "2") })
			scaleProvider(t, "0")
		}, func(t *testing.T) { scaleProvider(t, "2") }},
	} {
		t.Run(outage.name, func(t *testing.T) {
			name := slug(outage.name)
			image := s.signed(t, name, imageKey)
			outage.begin(t)
			s.kubectl(t, "run", name, "--image="+image).fails(t, denies, "containers/"+name+": no-answer: ")
			outage.end(t)
			s.kubectl(t, "run", name, "--image="+image).succeeds(t)
			s.running(t, name)
		})
	}
}
