package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// result is the outcome of a command.
type result struct {
	command        string
	stdout, stderr string
	err            error
}

// run runs a program as a user does, with the environment for the emulated OCI.
func run(ctx context.Context, stdin, program string, args ...string) result {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdin = environ, strings.NewReader(stdin)
	return finish(cmd)
}

// runIn runs a program in a folder, with the given environment and a longer time-out.
func runIn(t *testing.T, dir string, env []string, program string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, env
	return finish(cmd)
}

func finish(cmd *exec.Cmd) result {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	r := result{command: strings.Join(cmd.Args, " ")}
	if err := cmd.Run(); err != nil {
		r.err = fmt.Errorf("%s: %w\n%s%s", r.command, err, stdout.String(), stderr.String())
	}
	r.stdout, r.stderr = stdout.String(), stderr.String()
	return r
}

// succeeds ends the test if the command failed.
func (r result) succeeds(t *testing.T) result {
	t.Helper()
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r
}

// fails ends the test if the command succeeded, or did not print each of these words.
func (r result) fails(t *testing.T, words ...string) result {
	t.Helper()
	if r.err == nil {
		t.Fatalf("%s: succeeded; want it to fail with %q\n%s%s", r.command, words, r.stdout, r.stderr)
	}
	r.says(t, words...)
	return r
}

// says fails the test if the command did not print each of these words.
func (r result) says(t *testing.T, words ...string) result {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(r.stdout+r.stderr, word) {
			t.Errorf("%s: says nothing of %q:\n%s%s", r.command, word, r.stdout, r.stderr)
		}
	}
	return r
}

// warnings returns kubectl's warnings.
func (r result) warnings() []string {
	var list []string
	for line := range strings.Lines(r.stderr) {
		if text, ok := strings.CutPrefix(line, "Warning: "); ok {
			list = append(list, strings.TrimSpace(text))
		}
	}
	return list
}

// space is a test's namespace, with the acting user: the administrator, or the user
// that as names.
type space struct {
	name string
	user []string // flags
}

// slug turns a sentence into a name.
func slug(sentence string) string {
	return regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(sentence), "-")
}

// newSpace creates a namespace that is deleted after the test, with its constraints. If
// the test fails, newSpace prints what happened in it.
func newSpace(t *testing.T) space {
	t.Helper()
	name := slug(strings.TrimPrefix(t.Name(), "Test"))
	s := space{name: name[:min(len(name), 34)] + "-" + slug(rand.Text()[:5])}
	s.kubectl(t, "create", "namespace", s.name).succeeds(t)
	t.Cleanup(func() {
		s.kubectl(t, "delete", "constraints", "-l", "e2e="+s.name).succeeds(t)
		s.kubectl(t, "delete", "namespace", s.name, "--wait=false").succeeds(t)
	})
	t.Cleanup(func() {
		if t.Failed() {
			s.explain(t)
		}
	})
	return s
}

// as returns the same namespace with another acting user.
func (s space) as(user string, groups ...string) space {
	s.user = []string{"--as=" + user}
	for _, group := range groups {
		s.user = append(s.user, "--as-group="+group)
	}
	return s
}

// kubectl runs kubectl in the namespace.
func (s space) kubectl(t *testing.T, args ...string) result {
	t.Helper()
	return s.pipe(t, "", args...)
}

// pipe runs kubectl with standard input.
func (s space) pipe(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	// The test's context would be too short: clean-ups run kubectl too.
	return run(context.Background(), stdin, "kubectl", append(append([]string{"--namespace=" + s.name}, s.user...), args...)...)
}

// okeSign runs the plugin, through kubectl.
func okeSign(t *testing.T, args ...string) result {
	t.Helper()
	return run(context.Background(), "", "kubectl", append([]string{"oke-sign"}, args...)...)
}

// apply applies a manifest, in YAML.
func (s space) apply(t *testing.T, manifest string) result {
	t.Helper()
	return s.pipe(t, manifest, "apply", "-f", "-")
}

// applyAll applies objects.
func (s space) applyAll(t *testing.T, objects ...object) result {
	t.Helper()
	list, err := json.Marshal(object{"apiVersion": "v1", "kind": "List", "items": objects})
	if err != nil {
		t.Fatal(err)
	}
	return s.apply(t, string(list))
}

// get decodes the output of kubectl get.
func (s space) get(t *testing.T, into any, args ...string) {
	t.Helper()
	r := s.kubectl(t, append([]string{"get", "-o", "json"}, args...)...).succeeds(t)
	if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
		t.Fatalf("%s: %v", r.command, err)
	}
}

// eventually calls a function until it returns no error, at growing intervals, because
// each call may run kubectl.
func eventually(t *testing.T, within time.Duration, what string, try func() error) {
	t.Helper()
	began := time.Now()
	for pause := time.Second / 4; ; pause = min(2*pause, 3*time.Second) {
		err := try()
		if err == nil {
			return
		}
		if time.Since(began) > within {
			t.Fatalf("not within %s: %s: %v", within, what, err)
		}
		<-time.After(pause)
	}
}

// soon bounds steps that take seconds on an idle machine.
const soon = 2 * time.Minute
