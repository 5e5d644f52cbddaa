package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// kubernetesVersion is the version that the programs of Kubernetes report. Without it
// they report v0.0.0, and charts reject them.
const kubernetesVersion = "v1.36.3"

// hyper lists the names of one program, cmd/hyper.
var hyper = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"}

var buildFlags = []string{
	"-trimpath", // makes the build cache valid for every folder of the module cache
	"-ldflags", "-s -w" +
		" -X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
		" -X k8s.io/component-base/version.gitMajor=1" +
		" -X k8s.io/component-base/version.gitMinor=36",
}

// Build builds the programs of the module at source (this one) and returns their
// folder. The folder is in the user's cache, named by a hash of all build inputs. If it
// exists, Build builds nothing. Build reports on progress. The first build takes
// minutes.
func Build(ctx context.Context, source string, progress io.Writer) (string, error) {
	name, err := buildName(ctx, source)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	root := filepath.Join(cache, "oke-sign", "cluster")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	// Two builds at once would need the memory of two linkers.
	unlock, err := lock(filepath.Join(root, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	done := filepath.Join(root, name)
	now := time.Now()
	if err := os.Chtimes(done, now, now); err == nil {
		return done, nil
	}
	fmt.Fprintf(progress, "building Kubernetes %s, Gatekeeper and kwok from their Go modules: this takes minutes the first time, and is cached\n", kubernetesVersion)
	made, err := os.MkdirTemp(root, "building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(made)
	if err := os.Chmod(made, 0o755); err != nil {
		return "", err
	}
	if err := build(ctx, source, made, progress); err != nil {
		return "", fmt.Errorf("building the programs of the cluster: %w", err)
	}
	if err := os.Rename(made, done); err != nil {
		return "", err
	}
	fmt.Fprintf(progress, "built in %s, cached in %s\n", time.Since(now).Round(time.Second), done)
	return done, removeUnused(root, now.AddDate(0, -1, 0))
}

// removeUnused removes builds that nobody has used since.
func removeUnused(root string, since time.Time) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && entry.IsDir() && info.ModTime().Before(since) {
			if err := os.RemoveAll(filepath.Join(root, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func buildName(ctx context.Context, source string) (string, error) {
	version, err := goTool(ctx, source, "version").Output()
	if err != nil {
		return "", fmt.Errorf("go version: %w", err)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s%q", version, buildFlags)
	for _, file := range []string{"go.mod", "go.sum", "cmd/hyper/main.go"} {
		text, err := os.ReadFile(filepath.Join(source, file))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%d\n%s", len(text), text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

func goTool(ctx context.Context, source string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	// The go command ends its compilers when it is interrupted.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func build(ctx context.Context, source, out string, progress io.Writer) error {
	list := goTool(ctx, source, "list", "-deps", "tool")
	list.Stderr = progress
	packages, err := list.Output() // also downloads the modules
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	args := append([]string{"build", "-v", "-o", out + "/"}, buildFlags...)
	cmd := goTool(ctx, source, append(args, "tool")...)
	compiled, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	output := count(compiled, bytes.Count(packages, []byte("\n")), progress)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, strings.Join(output, "\n"))
	}
	for _, name := range hyper {
		if err := os.Symlink("hyper", filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return extract(ctx, source, out)
}

// count reports every hundredth compiled package on progress, and returns all other
// output.
func count(compiled io.Reader, of int, progress io.Writer) []string {
	began, n := time.Now(), 0
	var output []string
	for lines := bufio.NewScanner(compiled); lines.Scan(); {
		if line := lines.Text(); strings.ContainsAny(line, " :") || strings.HasPrefix(line, "#") {
			if !strings.HasPrefix(line, "go: downloading") {
				output = append(output, line)
			}
			continue
		}
		if n++; n%100 == 0 {
			fmt.Fprintf(progress, "%4d of at most %d packages compiled, %s\n", n, of, time.Since(began).Round(time.Second))
		}
	}
	return output
}

// extract copies from the modules what the programs also need: Gatekeeper's chart, and
// kwok's stages. Without stages, kwok simulates nothing.
func extract(ctx context.Context, source, out string) error {
	gatekeeper, err := moduleDir(ctx, source, "github.com/open-policy-agent/gatekeeper/v3")
	if err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(out, "gatekeeper-chart"), os.DirFS(filepath.Join(gatekeeper, "charts", "gatekeeper"))); err != nil {
		return err
	}
	kwok, err := moduleDir(ctx, source, "sigs.k8s.io/kwok")
	if err != nil {
		return err
	}
	stages, err := exec.CommandContext(ctx, filepath.Join(out, "kubectl"), "kustomize", filepath.Join(kwok, "kustomize", "stage", "fast")).Output()
	if err != nil {
		return fmt.Errorf("rendering kwok's stages: %w", err)
	}
	return os.WriteFile(filepath.Join(out, "kwok-stages.yaml"), stages, 0o644)
}

func moduleDir(ctx context.Context, source, module string) (string, error) {
	dir, err := goTool(ctx, source, "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", module, err)
	}
	return strings.TrimSpace(string(dir)), nil
}

// lock takes an exclusive lock on the file. The kernel releases it when the process
// ends.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: file, Err: err}, f.Close())
	}
	return func() { f.Close() }, nil
}

// FindProject returns the root of the checkout that contains dir.
func FindProject(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "test", "cluster", "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not in a checkout of oke-sign", dir)
		}
	}
}
