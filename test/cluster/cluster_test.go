package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/test/cluster"
)

// TestMain makes the test binary play two more roles. One is the first process of
// the clusters that it starts. The other, by an environment variable, is a starter
// of a cluster that a test can kill.
func TestMain(m *testing.M) {
	if code, entered := cluster.Enter(); entered {
		os.Exit(code)
	}
	if dir := os.Getenv("CLUSTER_TEST_HOLD"); dir != "" {
		runToEnd(dir)
	}
	os.Exit(m.Run())
}

func config(dir string) (cluster.Config, error) {
	project, err := cluster.FindProject(".")
	if err != nil {
		return cluster.Config{}, err
	}
	programs, err := cluster.Build(context.Background(), filepath.Join(project, "test", "cluster"), os.Stderr)
	return cluster.Config{Dir: dir, Programs: programs, Project: project}, err
}

func runToEnd(dir string) {
	cfg, err := config(dir)
	if err != nil {
		panic(err)
	}
	c, err := cluster.Start(context.Background(), cfg)
	if err != nil {
		panic(err)
	}
	code, _ := c.Wait()
	os.Exit(code)
}

// newFolder returns the folder of a new cluster, with a name short enough for sockets.
func newFolder(t *testing.T) string {
	t.Helper()
	scratch, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(scratch) })
	return filepath.Join(scratch, "c")
}

func start(t *testing.T, ctx context.Context, command ...string) (*cluster.Cluster, string) {
	t.Helper()
	dir := newFolder(t)
	cfg, err := config(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Command = command
	c, err := cluster.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Stop() }) // Stop fails if the cluster has ended by itself
	return c, dir
}

// processesOf returns the command lines of processes that mention a cluster's folder.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && bytes.Contains(text, []byte(dir)) {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen within two minutes: %s", what)
		}
	}
}

func running(dir, name string) bool {
	list, err := cluster.Remote{Dir: dir}.Processes(context.Background())
	for _, p := range list {
		if p.Name == name && p.State == "running" {
			return err == nil
		}
	}
	return false
}

func TestACommandEndsItsCluster(t *testing.T) {
	c, dir := start(t, t.Context(), "sh", "-c", "kubectl get --raw /readyz >$OKE_SIGN_CLUSTER/answer && exit 7")
	code, err := c.Wait()
	if code != 7 || err != nil {
		t.Errorf("got exit code %d, %v, want 7", code, err)
	}
	if answer, err := os.ReadFile(filepath.Join(dir, "answer")); string(answer) != "ok" {
		t.Errorf("kubectl inside got %q, %v, want ok", answer, err)
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
}

func TestNothingIsLeftWhenTheHolderIsKilled(t *testing.T) {
	for name, when := range map[string]string{"as it comes up": "etcd", "with controllers running": "kwok"} {
		t.Run(name, func(t *testing.T) {
			dir := newFolder(t)
			holder := exec.Command("/proc/self/exe")
			holder.Env = append(os.Environ(), "CLUSTER_TEST_HOLD="+dir)
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, when+" runs", func() bool { return running(dir, when) })
			if err := holder.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = holder.Wait()
			eventually(t, "no process is left", func() bool { return len(processesOf(t, dir)) == 0 })
		})
	}
}

func TestAnInterruptEndsACluster(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, dir := start(t, ctx)
	eventually(t, "kube-apiserver runs", func() bool { return running(dir, "kube-apiserver") })
	cancel()
	if code, _ := c.Wait(); code == 0 {
		t.Error("an interrupted cluster ended with exit code 0")
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
}

// If a part does not come up, the whole cluster ends, and the error names the part.
func TestAPartThatDoesNotComeUp(t *testing.T) {
	dir := newFolder(t)
	cfg, err := config(dir)
	if err != nil {
		t.Fatal(err)
	}
	broken := t.TempDir()
	if err := os.CopyFS(broken, os.DirFS(cfg.Programs)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(broken, "etcd")), os.Symlink("/bin/false", filepath.Join(broken, "etcd"))); err != nil {
		t.Fatal(err)
	}
	cfg.Programs = broken
	c, err := cluster.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("got %v, want an error that it ended", err)
	}
	if code, err := c.Wait(); code != 1 || err != nil {
		t.Errorf("got exit code %d, %v, want 1", code, err)
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
}

// Two clusters have the same addresses and do not see each other. The host reaches each
// through its forwarded ports, and not by the addresses inside.
func TestClustersSideBySide(t *testing.T) {
	one, oneDir := start(t, t.Context())
	two, twoDir := start(t, t.Context())
	for _, c := range []*cluster.Cluster{one, two} {
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config(oneDir)
	if err != nil {
		t.Fatal(err)
	}
	kubectl := func(dir string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), filepath.Join(cfg.Programs, "kubectl"), append(args, "--kubeconfig", filepath.Join(dir, "kubeconfig"))...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", cmd.Args, err, out)
		}
		return string(out)
	}
	kubectl(oneDir, "create", "namespace", "only-in-one")
	if got := kubectl(oneDir, "get", "namespaces", "-o", "name"); !strings.Contains(got, "only-in-one") {
		t.Errorf("the first cluster has %s, want only-in-one in it", got)
	}
	if got := kubectl(twoDir, "get", "namespaces", "-o", "name"); strings.Contains(got, "only-in-one") {
		t.Errorf("the second cluster has %s, want no only-in-one in it", got)
	}
	dialer := net.Dialer{Timeout: time.Second}
	if c, err := dialer.DialContext(t.Context(), "tcp", "127.96.0.1:443"); err == nil {
		c.Close()
		t.Error("the clusters' Service kubernetes answers outside of them")
	}
	env, err := os.ReadFile(filepath.Join(oneDir, "oci.env"))
	if err != nil {
		t.Fatal(err)
	}
	_, emulatorURL, _ := strings.Cut(string(env), "HTTPS_PROXY='")
	emulatorURL, _, _ = strings.Cut(emulatorURL, "'")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, emulatorURL+"/_emulator/calls", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("the emulator's forwarded address: %v", err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("the emulator's forwarded address: %s", answer.Status)
	}
	if err := (cluster.Remote{Dir: oneDir}).Down(t.Context()); err != nil {
		t.Error(err)
	}
	if code, err := one.Wait(); code != 0 || err != nil {
		t.Errorf("a cluster that Down ended: exit code %d, %v", code, err)
	}
	if got := kubectl(twoDir, "get", "--raw", "/readyz"); got != "ok" {
		t.Errorf("the second cluster says %q once the first is gone", got)
	}
}
