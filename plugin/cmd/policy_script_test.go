package cmd_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/manifest"
)

// crowd N FILE: runs N Pods in ten namespaces, ten of each workload, with the images
// of the file in turn.
func crowd(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("usage: crowd N FILE")
	}
	images := strings.Fields(ts.ReadFile(args[1]))
	for i := range n {
		workload, namespace := fmt.Sprintf("web-%d", i/10), fmt.Sprintf("team-%d", i/10%10)
		objects, err := manifest.Objects(fmt.Appendf(nil, `
{apiVersion: v1, kind: Pod, metadata: {name: %[1]s-%[2]d, namespace: %[3]s, annotations: {example.com/ip: 10.0.0.%[2]d},
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: %[1]s, uid: u, controller: true}]},
  spec: {containers: [{name: web, image: "%[4]s"}]}, status: {phase: Running}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: %[3]s}}`, workload, i, namespace, images[i/10%len(images)]))
		if err == nil {
			err = of(ts).cluster.Add(objects...)
		}
		if err != nil {
			ts.Fatalf("%v", err)
		}
	}
}

// stumble METHOD PATH [CODE]: the cluster answers requests whose path ends in PATH
// with the code, by default 502. Dry runs are not affected. "stumble clear" ends it.
func stumble(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "clear" {
		of(ts).cluster.Before(nil)
		return
	}
	path, code := regexp.MustCompile("("+args[1]+")$"), http.StatusBadGateway
	if len(args) > 2 {
		code, _ = strconv.Atoi(args[2])
	}
	of(ts).cluster.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != args[0] || !path.MatchString(r.URL.Path) || r.URL.Query().Get("dryRun") != "" {
			return false
		}
		http.Error(w, "the cluster stumbles", code)
		return true
	})
}

// audited: before each change of an object, its status changes.
func audited(ts *testscript.TestScript, _ bool, _ []string) {
	server := of(ts).cluster
	var n atomic.Int64
	server.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || n.Load() > 4 {
			return false
		}
		resp, err := http.Get(server.URL + r.URL.Path)
		if err == nil {
			defer resp.Body.Close() //nolint:errcheck // the body was read
			object := &unstructured.Unstructured{}
			if err = json.NewDecoder(resp.Body).Decode(&object.Object); err == nil {
				object.Object["status"] = map[string]any{"totalViolations": n.Add(1)}
				err = server.Add(object)
			}
		}
		if err != nil {
			ts.Logf("%v", err)
		}
		return false
	})
}

// typed CODE INPUT FILE COMMAND...: runs the command at a terminal and types the
// line INPUT when the command asks. The command must end with this exit code. FILE
// gets the terminal's text.
func typed(ts *testscript.TestScript, _ bool, args []string) {
	atTerminal(ts, nil, args)
}

// seen COLUMNS CODE FILE COMMAND...: runs the command at a terminal of this width.
// It must end with this exit code. FILE gets the terminal's text.
func seen(ts *testscript.TestScript, _ bool, args []string) {
	columns, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		ts.Fatalf("usage: seen COLUMNS CODE FILE COMMAND...")
	}
	atTerminal(ts, &pty.Winsize{Rows: 50, Cols: uint16(columns)}, append([]string{args[1], ""}, args[2:]...))
}

// atTerminal runs a command as typed does. The terminal has this size, if size is
// not nil.
func atTerminal(ts *testscript.TestScript, size *pty.Winsize, args []string) {
	words := []string{}
	for _, arg := range args[4:] {
		words = append(words, os.Expand(arg, ts.Getenv))
	}
	path := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, args[3])); err == nil && path == "" {
			path = filepath.Join(dir, args[3])
		}
	}
	command := exec.Command(path, words...)
	command.Dir = ts.MkAbs(".")
	for _, name := range []string{"HTTPS_PROXY", "SSL_CERT_FILE", "OCI_CONFIG_FILE", "KUBECONFIG", "HOME", "TMPDIR", "TERM", "NO_COLOR"} {
		command.Env = append(command.Env, name+"="+ts.Getenv(name))
	}
	terminal, err := pty.StartWithSize(command, size)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	defer terminal.Close() //nolint:errcheck // it was read
	var shown strings.Builder
	for b := make([]byte, 1000); ; {
		n, err := terminal.Read(b)
		shown.Write(b[:n])
		if err != nil { // Linux reports the end as an error
			break
		}
		if strings.HasSuffix(shown.String(), "? [y/N] ") {
			if _, err := terminal.WriteString(args[1] + "\n"); err != nil {
				ts.Fatalf("%v", err)
			}
		}
	}
	_ = command.Wait() // the test checks the exit code
	// A progress bar is removed from the line at the end.
	text := regexp.MustCompile(`[^\n]*\r`).ReplaceAllString(strings.ReplaceAll(shown.String(), "\r\n", "\n"), "")
	if err := os.WriteFile(ts.MkAbs(args[2]), []byte(text), 0o600); err != nil {
		ts.Fatalf("%v", err)
	}
	if got := fmt.Sprint(command.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("exit code %s, want %s; the terminal:\n%s", got, args[0], shown.String())
	}
}

// blur FILE NEW: copies a file with names in place of keys and digests, because
// their values differ each time.
func blur(ts *testscript.TestScript, _ bool, args []string) {
	replace(ts, args, []named{
		{`@sha256:[0-9a-f]{12}(…|[0-9a-f]{52})`, "@<digest>"},
		{`ocid1\.key\.[a-z0-9.-]+|…[a-z0-9]{10}\b`, "<key>"},
		{`WORK\S*/oke-sign-policy-\d+.yaml`, "<file>"},
	})
}

// named gives a pattern a name.
type named struct{ pattern, name string }

func replace(ts *testscript.TestScript, args []string, list []named) {
	text := ts.ReadFile(args[0])
	for _, s := range list {
		text = regexp.MustCompile(s.pattern).ReplaceAllString(text, s.name)
	}
	if err := os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600); err != nil {
		ts.Fatalf("%v", err)
	}
}
