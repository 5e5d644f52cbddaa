package cmd_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cmd"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper/gatekeepertest"
)

// fill FILE...: replaces the variables in the files by their values.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args {
		text := os.Expand(ts.ReadFile(file), ts.Getenv)
		if err := os.WriteFile(ts.MkAbs(file), []byte(text), 0o600); err != nil {
			ts.Fatalf("%v", err)
		}
	}
}

const (
	checkedImage = "iad.ocir.io/ns/good@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"
	checkedKey   = "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a"
)

// Gatekeeper's own client asks a running provider, under the path for the kind of
// constraint.
func TestCheckAsksAProvider(t *testing.T) {
	p := gatekeepertest.Start(t, nil)
	dir := t.TempDir()
	put := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	ca := put("ca.crt", string(p.CA))
	constraints := put("constraints.yaml", `
{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: signed}, spec: {parameters: {keys: [`+checkedKey+`]}}}
---
{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEScannedImages, metadata: {name: scanned}, spec: {parameters: {maxAge: 99999h}}}
`)
	pod := put("pod.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: web, image: '"+checkedImage+"'}]}}")
	all := map[string]any{
		"signed": true, "reason": "signed",
		"known": true, "scannedAt": "2026-01-07T07:02:58Z", "problems": []any{}, "counts": map[string]int{"CRITICAL": 0, "HIGH": 0, "MEDIUM": 0, "LOW": 0},
	}
	withCert := []string{"--provider-ca", ca, "--provider-cert", p.Certificate, "--provider-key", p.Key}
	for name, tc := range map[string]struct {
		answer gatekeepertest.Answer
		args   []string
		want   string
		exit   int
	}{
		"yes":                           {gatekeepertest.Each(func(string) any { return all }), withCert, `"result": "allowed"`, 0},
		"no":                            {gatekeepertest.Each(func(string) any { return map[string]any{"signed": false, "reason": "unsigned"} }), withCert, `"reason": "unsigned"`, 1}, // and nothing is known of scans
		"a system error":                {func([]string) (int, string) { return http.StatusOK, gatekeepertest.Response("OCI is down") }, withCert, "OCI is down", 1},
		"no client certificate":         {gatekeepertest.Each(func(string) any { return all }), []string{"--provider-ca", ca}, `"result": "unknown"`, 1},
		"a file that is not a CA":       {gatekeepertest.Each(func(string) any { return all }), []string{"--provider-ca", pod}, `"error": `, 1},
		"a CA file that does not exist": {gatekeepertest.Each(func(string) any { return all }), []string{"--provider-ca", filepath.Join(dir, "nowhere")}, `"error": `, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p.Answer(tc.answer)
			streams, _, out, errOut := genericiooptions.NewTestIOStreams()
			args := append([]string{"check", "-f", pod, "--constraints", constraints, "-o", "json", "--provider", strings.TrimSuffix(p.URL, "/v1/signatures")}, tc.args...)
			code := cmd.Run(context.Background(), cmd.Config{Args: args, Streams: streams, Getenv: func(string) string { return "" }})
			if code != tc.exit || !strings.Contains(out.String(), tc.want) || !json.Valid(out.Bytes()) {
				t.Errorf("exit code %d, want %d and %s in\n%s\n%s", code, tc.exit, tc.want, out, errOut)
			}
		})
	}
}
