package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// programs returns a program for each platform, by the platform's name.
func programs(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(\"it runs\") }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(map[string]string)
	for _, arch := range []string{"amd64", "arm64"} {
		made[arch] = filepath.Join(dir, arch)
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", made[arch], source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return made
}

func files(t *testing.T, image v1.Image) map[string]tar.Header {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]tar.Header)
	for _, layer := range layers {
		content, err := layer.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(content); ; {
			header, err := r.Next()
			if err == io.EOF { //nolint:errorlint // the documentation of archive/tar names the value itself
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			found[header.Name] = *header
		}
		if err := content.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func TestImage(t *testing.T) {
	made := programs(t)
	for program, ports := range map[string]int{"oke-sign-provider": 2, "kubectl-oke_sign": 0} {
		t.Run(program, func(t *testing.T) { testImage(t, made, program, ports) })
	}
}

func testImage(t *testing.T, made map[string]string, program string, ports int) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/" + strings.ReplaceAll(program, "_", "-") + ":0.1.0"
	var digests []string
	for range 2 {
		var out bytes.Buffer
		err := run(t.Context(), []string{
			"--program", program, "--out", filepath.Join(t.TempDir(), "layout"), "--push", ref, "--version", "0.1.0", "--revision", "abc", "--created", "1767225600",
			"linux/amd64=" + made["amd64"], "linux/arm64=" + made["arm64"],
		}, &out)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, strings.TrimSpace(out.String()))
	}
	if digests[0] != digests[1] {
		t.Errorf("the same programs gave two digests: %q", digests)
	}

	at, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(at)
	if err != nil {
		t.Fatal(err)
	}
	if pushed, err := index.Digest(); err != nil || pushed.String() != digests[0] {
		t.Errorf("pushed %s, and printed %s: %v", pushed, digests[0], err)
	}
	for arch, file := range made {
		image, err := remote.Image(at, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if c := config.Config; config.Architecture != arch || c.User != nobody || !slices.Equal(c.Entrypoint, []string{"/" + program}) || len(c.ExposedPorts) != ports ||
			c.Labels["org.opencontainers.image.version"] != "0.1.0" || c.Labels["org.opencontainers.image.title"] != program {
			t.Errorf("%s: %+v", arch, config)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		found := files(t, image)
		want := []string{"etc/", "etc/ssl/", "etc/ssl/certs/", "etc/ssl/certs/ca-certificates.crt", program}
		slices.Sort(want)
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(found))); diff != "" {
			t.Errorf("%s: files:\n%s", arch, diff)
		}
		if h := found[program]; h.Size != info.Size() || h.Mode != 0o555 || h.Uid != 0 {
			t.Errorf("%s: the program is %+v", arch, h)
		}
	}
}

func TestAuthorities(t *testing.T) {
	text, err := authorities()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if n := bytes.Count(text, []byte("BEGIN CERTIFICATE")); n < 50 || !pool.AppendCertsFromPEM(text) {
		t.Errorf("%d authorities", n)
	}
}

func TestBadProgramsAreRejected(t *testing.T) {
	made := programs(t)
	dynamic, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	for name, tc := range map[string]struct{ program, want string }{
		"a program for another machine": {"linux/amd64=" + made["arm64"], "not for amd64"},
		"a program with libraries":      {"linux/" + runtime.GOARCH + "=" + dynamic, "linked dynamically"},
		"not a program":                 {"linux/amd64=main.go", "bad magic number"},
		"another system":                {"darwin/arm64=" + made["arm64"], "want linux/amd64=FILE"},
		"no file":                       {"linux/amd64", "no such file"},
		"another program":               {"--program=sh linux/amd64=" + made["amd64"], "--program sh: want"},
	} {
		dir := filepath.Join(t.TempDir(), "layout")
		if err := run(t.Context(), append([]string{"--out", dir}, strings.Fields(tc.program)...), io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: something was written", name)
		}
	}
}
