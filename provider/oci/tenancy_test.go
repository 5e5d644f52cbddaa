package oci_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

func TestLineage(t *testing.T) {
	w := newWorld(t, oci.Config{})
	team := w.NewCompartment("team", "")
	app := w.NewCompartment("app", team)
	got, err := w.who.Lineage(t.Context(), app)
	want := []oci.Compartment{{ID: app, Name: "app"}, {ID: team, Name: "team"}, {ID: w.ID, Name: "(root)"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if got, err := w.who.Lineage(t.Context(), w.ID); err != nil || len(got) != 1 {
		t.Error(got, err)
	}
	for what, tt := range map[string]struct {
		fault ocitest.Fault
		want  string
	}{
		"a circle":  {ocitest.Fault{Operation: "identity.GetCompartment", Kind: ocitest.Set, Set: map[string]any{"compartmentId": app}}, "nested too deeply"},
		"a path":    {ocitest.Fault{Operation: "identity.GetCompartment", Kind: ocitest.Set, Set: map[string]any{"compartmentId": "../x"}}, "not the OCID of a compartment"},
		"nowhere":   {ocitest.Fault{Operation: "identity.GetCompartment", Kind: ocitest.Set, Set: map[string]any{"compartmentId": nil}}, "without a parent"},
		"another's": {ocitest.Fault{Operation: "identity.GetCompartment", Kind: ocitest.Set, Set: map[string]any{"id": team + "x"}}, "got another"},
	} {
		id := w.Fault(tt.fault)
		if got, err := w.who.Lineage(t.Context(), app); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v %v", what, got, err)
		}
		cloud.ClearFault(id)
	}
}

func TestStatements(t *testing.T) {
	w := newWorld(t, oci.Config{})
	const statement = "Allow user u to read repos in tenancy"
	w.Allow(statement)
	got, err := w.who.Statements(t.Context(), w.ID)
	if err != nil || len(got) != 2 || got[1] != statement {
		t.Error(got, err)
	}
	if got, err := w.who.Statements(t.Context(), w.NewCompartment("team", "")); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
}

// TestWithConcurrency checks that throttling on one client does not delay the other.
func TestWithConcurrency(t *testing.T) {
	troubles := 0
	w := newWorld(t, oci.Config{OnDelay: func(context.Context, error) { troubles++ }})
	apart, err := w.who.WithConcurrency(1)
	if err != nil || apart.Tenancy() != w.ID || apart.String() != w.who.String() {
		t.Fatal(apart, err)
	}
	w.Fault(ocitest.Fault{Operation: "artifacts.ListContainerImages", Kind: ocitest.Status, Status: 429, Code: "TooManyRequests", RetryAfter: "3600"})
	call := oci.Call{
		Service: "artifacts", Operation: "ListContainerImages", Method: "GET", Path: "/20160918/container/images",
		Host: "artifacts.us-ashburn-1.oci.oraclecloud.com",
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := apart.Do(ctx, call, artifacts.ListContainerImagesRequest{CompartmentId: common.String(w.ID)}, nil); err == nil {
		t.Fatal("not throttled")
	}
	call.Operation, call.Path = "GetContainerConfiguration", "/20160918/container/configuration"
	ask := func(who *oci.Client) int {
		before := troubles
		if _, err := who.Do(t.Context(), call, artifacts.GetContainerConfigurationRequest{CompartmentId: common.String(w.ID)}, nil); err != nil {
			t.Error(err)
		}
		return troubles - before
	}
	if n := ask(w.who); n != 0 {
		t.Errorf("%d troubles on the other client", n)
	}
	if n := ask(apart); n != 1 {
		t.Errorf("%d troubles on the throttled client, want 1: the test proves nothing", n)
	}
}

func TestMaxAnswer(t *testing.T) {
	w := newWorld(t, oci.Config{})
	long := `["` + strings.Repeat("x", 5<<20) + `"]`
	w.Fault(ocitest.Fault{Operation: "artifacts.ListContainerImages", Kind: ocitest.Body, Body: long})
	list := oci.Call{
		Service: "artifacts", Operation: "ListContainerImages", Method: "GET", Path: "/20160918/container/images",
		Host: "artifacts.us-ashburn-1.oci.oraclecloud.com",
	}
	request := artifacts.ListContainerImagesRequest{CompartmentId: common.String(w.ID)}
	for limit, good := range map[int64]bool{0: false, 1 << 10: false, 6 << 20: true} {
		list.MaxAnswer = limit
		var answer []string
		if _, err := w.who.Do(t.Context(), list, request, &answer); (err == nil) != good || err != nil && !oci.IsMalformed(err) {
			t.Errorf("%d: %v", limit, err)
		}
	}
}
