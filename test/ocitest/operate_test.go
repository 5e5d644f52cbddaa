package ocitest_test

import (
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// TestWelcome checks that the commands to type name what the cloud holds.
func TestWelcome(t *testing.T) {
	t.Parallel()
	demo, bare := ocitest.Start(t, ocitest.Config{Seed: "demo"}).Welcome(), ocitest.Start(t, ocitest.Config{Seed: "bare"}).Welcome()
	for _, want := range []string{
		"iad.ocir.io/idwpqivumvev/scan-test (v1, latest)", "image-key (RSA)", "/env\n", "env.d/AUTH_KIND",
		"  kubectl oke-sign sign iad.ocir.io/idwpqivumvev/scan-test:latest --resolve --key image-key\n",
	} {
		if !strings.Contains(demo, want) {
			t.Errorf("%q is missing in:\n%s", want, demo)
		}
	}
	if strings.Contains(bare, "images") || !strings.Contains(bare, "/env\n") {
		t.Errorf("a bare cloud says:\n%s", bare)
	}
}

func TestGrant(t *testing.T) {
	t.Parallel()
	cloud := ocitest.Start(t, ocitest.Config{Seed: "bare"})
	const statement = "Allow group ci to read repos in tenancy"
	for range 2 {
		if err := cloud.Grant(statement); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(string(cloud.State()), statement); n != 1 {
		t.Errorf("the state has the statement %d times", n)
	}
	for _, bad := range [][]string{nil, {"Let me in"}, {statement, "Let me in"}, make([]string, 51)} {
		if err := cloud.Grant(bad...); err == nil {
			t.Errorf("%q was added", bad)
		}
	}
	if err := ocitest.Start(t, ocitest.Config{}).Grant(statement); err == nil {
		t.Error("a cloud without a tenancy took a statement")
	}
}
