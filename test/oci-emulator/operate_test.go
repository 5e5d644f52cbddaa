package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestOperate adds a statement and an auth token to a running emulator.
func TestOperate(t *testing.T) {
	t.Parallel()
	url, _ := start(t, "--home", t.TempDir(), "--seed", "demo")
	ask := func(proxy string, args ...string) (code int, out, errOut string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := command(ctx, args...)
		cmd.Env = append(cmd.Env, "HTTPS_PROXY="+proxy)
		var o, e bytes.Buffer
		cmd.Stdout, cmd.Stderr = &o, &e
		_ = cmd.Run() // the exit code is checked
		return cmd.ProcessState.ExitCode(), o.String(), e.String()
	}
	const statement = "Allow group ci to read repos in tenancy"
	if code, out, errOut := ask(url, "allow", statement); code != 0 || out != "1 added\n" {
		t.Errorf("allow: exit %d, %q, %q", code, out, errOut)
	}
	if code, out, errOut := ask(url, "auth-token"); code != 0 || len(strings.TrimSpace(out)) < 20 || !strings.Contains(errOut, "docker login iad.ocir.io -u idwpqivumvev/operator ") {
		t.Errorf("auth-token: exit %d, %q, %q", code, out, errOut)
	}
	res, err := http.Get(url + "/_emulator/state")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var state struct {
		Tenancies map[string]struct{ Policies []string }
	}
	if err := json.NewDecoder(res.Body).Decode(&state); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, tenancy := range state.Tenancies {
		found = found || strings.Contains(strings.Join(tenancy.Policies, "\n"), statement)
	}
	if !found {
		t.Errorf("no tenancy has the statement: %v", state.Tenancies)
	}
	for name, tc := range map[string]struct {
		proxy string
		args  []string
		code  int
		want  string
	}{
		"no environment":    {"", []string{"allow", statement}, 1, "source the file env"},
		"a proxy elsewhere": {"http://proxy.example.com:3128", []string{"allow", statement}, 1, "not an emulator on loopback"},
		"nobody there":      {"http://127.0.0.1:9", []string{"auth-token"}, 1, "connection refused"},
		"no statement":      {url, []string{"allow"}, 2, "name the statements"},
		"not a statement":   {url, []string{"allow", "Let me in"}, 1, "Let me in"},
		"an unknown user":   {url, []string{"auth-token", "nobody"}, 1, `no user is named "nobody"`},
		"two users":         {url, []string{"auth-token", "a", "b"}, 2, "one user"},
		"a second token":    {url, []string{"auth-token"}, 0, ""},
	} {
		if code, _, errOut := ask(tc.proxy, tc.args...); code != tc.code || !strings.Contains(errOut, tc.want) {
			t.Errorf("%s: exit %d, %q", name, code, errOut)
		}
	}
	if code, _, errOut := ask(url, "auth-token"); code != 1 || !strings.Contains(errOut, "OCI allows no more") {
		t.Errorf("a third token: exit %d, %q", code, errOut)
	}
}
