package cmd_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cmd"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// A command that is interrupted says so of every target, and does not succeed.
func TestInterrupted(t *testing.T) {
	cloud := ocitest.Start(t, ocitest.Config{})
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("vault", "").NewKey("key", ocitest.AES256)
	images := []string{tenancy.NewImage("web", "v1").Ref(), tenancy.NewImage("web", "v2").Ref()}
	config := tenancy.Admin().ConfigFile()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	for _, name := range []string{"sign", "verify", "signatures"} {
		streams, _, out, errOut := genericiooptions.NewTestIOStreams()
		args := append([]string{name, "--config-file", config, "-o", "json", "--key", key.ID}, images...)
		code := cmd.Run(ctx, cmd.Config{Args: args, Streams: streams, Getenv: func(string) string { return "" }})
		if code != 1 {
			t.Errorf("%s: exit code %d, want 1", name, code)
		}
		var elements []struct{ Image, Error string }
		if err := json.Unmarshal(out.Bytes(), &elements); err != nil || len(elements) != len(images) {
			t.Errorf("%s: %v, got %s", name, err, out)
		}
		for i, e := range elements {
			if e.Image != images[i] || !strings.HasPrefix(e.Error, "interrupted") {
				t.Errorf("%s: got %v for %s", name, e, images[i])
			}
		}
		if got := errOut.String(); strings.Count(got, "error: interrupted") != 1 {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if got := cloud.Calls(); len(got) > 0 {
		t.Errorf("OCI was asked: %v", got)
	}
}
