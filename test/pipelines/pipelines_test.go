package pipelines

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ctx is the context of the programs that this binary simulates.
var ctx = context.Background()

const (
	repository = "iad.ocir.io/idwpqivumvev/scan-test"
	archive    = "kubectl-oke_sign_linux_amd64.tar.gz"
)

// TestMain makes the test binary act as docker if it is called by that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "docker" {
		if err := docker(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) //nolint:forbidigo // the test binary acts as a program here
		}
		return
	}
	m.Run()
}

// world is an emulated OCI and a release of the plugin.
type world struct {
	home    string // of the emulator
	bin     string
	release string
	sum     string
	keys    map[string]string // OCIDs by name
}

func build(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{home: filepath.Join(dir, "oci"), bin: filepath.Join(dir, "bin"), release: filepath.Join(dir, "release")}
	for _, d := range []string{w.bin, w.release} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	made := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", dir+"/", "./plugin/kubectl-oke_sign", "./test/oci-emulator")
	made.Dir, made.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := made.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(w.bin, "docker"))
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range simulated {
		write(t, filepath.Join(w.bin, name), text)
		if err := os.Chmod(filepath.Join(w.bin, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.sum = pack(t, dir, w.release)
	w.emulate(t, filepath.Join(dir, "oci-emulator"))
	return w
}

// pack makes a release of the program in dir and returns the archive's SHA-256 sum.
func pack(t *testing.T, dir, release string) string {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", dir, "-czf", filepath.Join(release, archive), "kubectl-oke_sign").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(release, archive))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	write(t, filepath.Join(release, "checksums.txt"), hex.EncodeToString(sum[:])+"  "+archive+"\n"+strings.Repeat("0", 64)+"  other.tar.gz\n")
	return hex.EncodeToString(sum[:])
}

func (w *world) emulate(t *testing.T, program string) {
	t.Helper()
	emulator := exec.CommandContext(context.WithoutCancel(t.Context()), program, "--home", w.home, "--seed", "demo")
	emulator.Stderr = os.Stderr
	out, err := emulator.StdoutPipe()
	if err == nil {
		err = emulator.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		emulator.Process.Signal(syscall.SIGTERM) //nolint:errcheck // Wait returns its error
		if err := emulator.Wait(); err != nil {
			t.Errorf("the emulator ended with %v", err)
		}
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("no ready line: %v", err)
	}
	w.keys = map[string]string{}
	var keys []struct{ Name, ID string }
	text, err := w.plugin(t, "keys", "list", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &keys)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, k := range keys {
		w.keys[k.Name] = k.ID
	}
}

// plugin runs the plugin as the operator of the emulated OCI.
func (w *world) plugin(t *testing.T, args ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "bash", append([]string{"-c", `. "$1/env" && shift && exec "$@"`, "bash", w.home, filepath.Join(filepath.Dir(w.bin), "kubectl-oke_sign")}, args...)...)
	command.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}
	out, err := command.Output()
	return string(out), err
}

// job is one run of a pipeline.
type job struct {
	*world
	t       *testing.T
	kind    string // of the environment that the service provides
	dir     string // the sources
	home    string
	extra   []string // environment of the service
	outputs map[string]string
	path    []string
}

// start writes the sources of a job. Its cluster allows one key.
func (w *world) start(t *testing.T, kind, wants string) *job {
	t.Helper()
	j := &job{world: w, t: t, kind: kind, dir: t.TempDir(), home: t.TempDir(), outputs: map[string]string{}}
	write(t, filepath.Join(j.dir, "Dockerfile"), "FROM scratch\n# "+rand.Text()+"\n")
	for file, text := range map[string]string{
		"deploy/web.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n    - name: web\n      image: " + repository + ":v1\n",
		"policy/signed.yaml": "apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: OKESignedImages\nmetadata: {name: signed}\nspec: {parameters: {keys: [" + wants + "]}}\n---\n" +
			"apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: OKEImageDigests\nmetadata: {name: digests}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(j.dir, file)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(j.dir, file), text)
	}
	return j
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// image returns the image that the manifest names now.
func (j *job) image() string {
	j.t.Helper()
	text, err := os.ReadFile(filepath.Join(j.dir, "deploy/web.yaml"))
	if err != nil {
		j.t.Fatal(err)
	}
	return regexp.MustCompile(`image: (\S+)`).FindStringSubmatch(string(text))[1]
}

// run runs steps until one fails, and returns their output.
func (j *job) run(steps []step) (string, error) {
	j.t.Helper()
	var printed strings.Builder
	for _, s := range steps {
		out, err := j.step(s)
		fmt.Fprintf(&printed, "== %s\n%s", s.name, out)
		if err != nil {
			return printed.String(), fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return printed.String(), nil
}

func (j *job) step(s step) (string, error) {
	j.t.Helper()
	words := []string{filepath.Join(filepath.Dir(j.bin), "kubectl-oke_sign")}
	if s.args != nil {
		words = append(words, s.args...)
	} else {
		file := filepath.Join(j.t.TempDir(), "script")
		write(j.t, file, s.script)
		words = append(slices.Clone(s.shell), file)
	}
	// As in the service, the job's own variables override those of the environment.
	env := []string{"PATH=" + strings.Join(append(j.path, j.bin, "/usr/bin:/bin"), ":"), "HOME=" + j.home, "RELEASE=" + j.release}
	lines := []string{j.sources()}
	for _, name := range slices.Sorted(maps.Keys(s.env)) {
		lines = append(lines, `export `+name+`="$JOB_`+name+`"`)
		env = append(env, "JOB_"+name+"="+expand(s.env[name], j.outputs))
	}
	env = append(env, "OCI="+j.world.home, "KIND="+j.kind)
	env = append(env, j.extra...)
	output, path := filepath.Join(j.t.TempDir(), "output"), filepath.Join(j.t.TempDir(), "path")
	env = append(env, "GITHUB_OUTPUT="+output, "GITHUB_PATH="+path)
	ctx, cancel := context.WithTimeout(j.t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", append([]string{"-c", strings.Join(lines, "\n") + "\n" + `exec "$@"`, "bash"}, words...)...)
	command.Dir, command.Env = j.dir, env
	out, err := command.CombinedOutput()
	j.read(s, output, path)
	return string(out), err
}

// read reads the outputs that a step of GitHub Actions leaves for later steps.
func (j *job) read(s step, output, path string) {
	if text, err := os.ReadFile(output); err == nil {
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			j.outputs["steps."+s.output+".outputs."+name] = value
		}
	}
	if text, err := os.ReadFile(path); err == nil {
		j.path = append(j.path, strings.Fields(string(text))...)
	}
}

// pipeline is one pipeline of docs/ci.
type pipeline struct {
	kind     string
	variants []string // of the environment
	files    []string
	read     func(t *testing.T, texts []string) []step
	extra    func(j *job) []string
	unready  string // the message about names that are not filled in
	pushes   bool   // otherwise the image exists already
}

func one(read func(*testing.T, string) []step) func(*testing.T, []string) []step {
	return func(t *testing.T, texts []string) []step { return read(t, texts[0]) }
}

var pipelines = map[string]pipeline{
	"OCI DevOps, build": {
		kind: "resource_principal", variants: []string{"resource_principal-1.1", "resource_principal-3.0"},
		files: []string{"devops/build_spec.yaml"}, read: one(devops), pushes: true,
		extra: func(j *job) []string {
			return []string{"OCI_PRIMARY_SOURCE_DIR=" + j.dir, "OCI_BUILD_RUN_ID=ocid1.devopsbuildrun.oc1.iad.x" + strings.ToLower(rand.Text())}
		},
		unready: "build_spec.yaml: fill in IMAGE, KEY and SHA256",
	},
	"GitHub Actions": {
		kind: "oidc", files: []string{"github/action.yml", "github/workflow.yaml"}, pushes: true,
		read:    func(t *testing.T, texts []string) []step { return github(t, texts[0], texts[1]) },
		extra:   func(j *job) []string { return []string{"RUNNER_TEMP=" + j.home} },
		unready: "::error::fill in what is in <angle brackets> in the workflow",
	},
	"GitLab": {
		kind: "oidc-gitlab", files: []string{"gitlab/.gitlab-ci.yml"}, read: one(gitlab), pushes: true,
		extra:   func(*job) []string { return []string{"CI_COMMIT_SHORT_SHA=" + strings.ToLower(rand.Text()[:8])} },
		unready: ".gitlab-ci.yml: fill in what is in <angle brackets>",
	},
	"Jenkins": {
		kind: "instance_principal", files: []string{"jenkins/Jenkinsfile"}, read: one(jenkins), pushes: true,
		extra:   func(*job) []string { return []string{"BUILD_NUMBER=" + strings.ToLower(rand.Text()[:8])} },
		unready: "Jenkinsfile: fill in IMAGE, KEY and SHA256",
	},
	"Tekton":      {kind: "oke_workload_identity", files: []string{"tekton/sign.yaml"}, read: one(tekton), unready: "is not a reference|not a reference that can be relied on"},
	"Cloud Shell": {kind: "instance_obo_user", files: []string{"cloud-shell.sh"}, read: one(cloudShell), unready: `"<image by its digest>": not a reference`},
}

// steps reads a pipeline and fills in its names.
func (j *job) steps(p pipeline, values map[string]string) []step {
	j.t.Helper()
	var texts []string
	for _, file := range p.files {
		texts = append(texts, fill(j.t, file, values))
	}
	if p.extra != nil {
		j.extra = p.extra(j)
	}
	j.outputs["secrets.OCI_OIDC_CLIENT_SECRET"] = j.variable("OCI_OIDC_CLIENT_SECRET")
	return p.read(j.t, texts)
}

// values returns the names that a person fills in.
func (j *job) values(image string) map[string]string {
	_, digest, _ := strings.Cut(image, "@")
	return map[string]string{
		"region key": "iad", "namespace": "idwpqivumvev", "repository": "scan-test", "digest": digest, "image by its digest": image,
		"OCID of the key that signs":                                               j.keys["image-key"],
		"SHA-256 sum of " + archive + ", from checksums.txt":                       j.sum,
		"region, such as us-ashburn-1":                                             "us-ashburn-1",
		"URL of the identity domain":                                               j.variable("OCI_DOMAIN_URL"),
		"client id of the application":                                             j.variable("OCI_OIDC_CLIENT_ID"),
		"audience that the trust asks for, such as the URL of the identity domain": j.variable("OCI_DOMAIN_URL"),
		"claim with the sources":                                                   "sources",
	}
}

// variable returns a variable of the environment, as an administrator would.
func (j *job) variable(name string) string {
	j.t.Helper()
	command := exec.CommandContext(j.t.Context(), "bash", "-c", j.sources()+`; printf %s "${!NAME-}"`)
	command.Env = []string{"PATH=/usr/bin:/bin", "OCI=" + j.world.home, "KIND=" + j.kind, "NAME=" + name}
	out, err := command.Output()
	if err != nil {
		j.t.Fatalf("reading %s: %v", name, err)
	}
	return string(out)
}

// sources returns shell lines that set up the job's environment.
func (j *job) sources() string {
	return `. "$OCI/env" && for file in "$OCI"/env.d/"$KIND" "$OCI"/env.more/"$KIND"; do [[ ! -f $file ]] || { . "$file"; found=1; }; done; [[ ${found-} ]] || exit 99; unset found`
}

// pushed returns an image that an untrusted person has pushed.
func (j *job) pushed() string {
	j.t.Helper()
	other := j.start(j.t, "api_key", j.keys["image-key"])
	out, err := other.run([]step{{shell: []string{"bash", "-eo", "pipefail"}, script: `
"$(dirname "$OCI")/kubectl-oke_sign" registry-token iad.ocir.io | docker login --username BEARER_TOKEN --password-stdin iad.ocir.io
docker build --tag "$IMAGE" . && docker push "$IMAGE"`, env: map[string]string{"IMAGE": repository + ":" + strings.ToLower(rand.Text()[:8])}}})
	digest := regexp.MustCompile(`digest: (sha256:[0-9a-f]{64})`).FindStringSubmatch(out)
	if err != nil || digest == nil {
		j.t.Fatalf("%v\n%s", err, out)
	}
	return repository + "@" + digest[1]
}

// prepared returns a job and its pipeline's steps. If the pipeline does not push, the
// manifest's image exists already.
func (w *world) prepared(t *testing.T, p pipeline, wants string) (*job, []step) {
	t.Helper()
	j := w.start(t, p.kind, wants)
	image := ""
	if !p.pushes {
		image = j.pushed()
		manifest := filepath.Join(j.dir, "deploy/web.yaml")
		text, err := os.ReadFile(manifest)
		if err != nil {
			t.Fatal(err)
		}
		write(t, manifest, strings.Replace(string(text), repository+":v1", image, 1))
	}
	return j, j.steps(p, j.values(image))
}

// signedBy reports whether the key has signed the image, from an outsider's view.
func (j *job) signedBy(key string) bool {
	j.t.Helper()
	image := j.image()
	if !strings.Contains(image, "@sha256:") {
		return false
	}
	out, err := j.plugin(j.t, "verify", image, "--key", key, "-o", "name")
	return err == nil && strings.TrimSpace(out) == image
}

// without returns the steps without those that sign.
func without(steps []step) []step {
	signs := regexp.MustCompile(`(?m)^.*kubectl-oke_sign sign .*$`)
	var left []step
	for _, s := range steps {
		if len(s.args) > 0 && s.args[0] == "sign" {
			continue
		}
		s.script = signs.ReplaceAllString(s.script, "true")
		left = append(left, s)
	}
	return left
}

func TestPipelines(t *testing.T) {
	w := build(t)
	t.Run("OCI DevOps, deployment", func(t *testing.T) { testDeployment(t, w) })
	for name, p := range pipelines {
		t.Run(name, func(t *testing.T) {
			for _, kind := range append([]string{p.kind}, p.variants...) {
				t.Run("signs, "+kind, func(t *testing.T) {
					p := p
					p.kind = kind
					j, steps := w.prepared(t, p, w.keys["image-key"])
					if out, err := j.run(steps); err != nil || !j.signedBy(w.keys["image-key"]) {
						t.Errorf("%s: %v\n%s", j.image(), err, out)
					}
				})
			}
			t.Run("fails for an unsigned image", func(t *testing.T) {
				j, steps := w.prepared(t, p, w.keys["image-key"])
				if out, err := j.run(without(steps)); err == nil || !strings.Contains(out, "unsigned") {
					t.Errorf("%v\n%s", err, out)
				}
			})
			t.Run("says which names are missing", func(t *testing.T) {
				j := w.start(t, p.kind, w.keys["image-key"])
				blanks := map[string]string{}
				for name := range j.values("") {
					blanks[name] = "<" + name + ">"
				}
				if out, err := j.run(j.steps(p, blanks)); err == nil || !regexp.MustCompile(p.unready).MatchString(out) {
					t.Errorf("%v, want %s\n%s", err, p.unready, out)
				}
			})
			t.Run("refuses a program with another checksum", func(t *testing.T) {
				if p.kind == "oke_workload_identity" {
					t.Skip("it runs an image, and downloads nothing")
				}
				other := *w
				other.release = t.TempDir()
				for _, file := range []string{archive, "checksums.txt"} {
					text, err := os.ReadFile(filepath.Join(w.release, file))
					if err != nil {
						t.Fatal(err)
					}
					if file == archive {
						text[len(text)/2] ^= 1
					}
					write(t, filepath.Join(other.release, file), string(text))
				}
				j, steps := other.prepared(t, p, w.keys["image-key"])
				if out, err := j.run(steps); err == nil || !strings.Contains(out, archive+": FAILED") || j.signedBy(w.keys["image-key"]) {
					t.Errorf("%v\n%s", err, out)
				}
			})
		})
	}
}

// testDeployment checks that the deployment's stage fails unless the image is signed.
func testDeployment(t *testing.T, w *world) {
	verify := pipeline{kind: "resource_principal", files: []string{"devops/verify_command_spec.yaml"}, read: one(devops)}
	j, steps := w.prepared(t, verify, w.keys["image-key"])
	j.extra = []string{"IMAGE_BY_DIGEST=" + j.image()}
	if out, err := j.run(steps); err == nil || !strings.Contains(out, "unsigned") {
		t.Errorf("unsigned: %v\n%s", err, out)
	}
	if out, err := j.plugin(t, "sign", j.image(), "--key", w.keys["release-key"]); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := j.run(steps); err == nil || !strings.Contains(out, "key-not-allowed") {
		t.Errorf("signed with another key: %v\n%s", err, out)
	}
	if out, err := j.plugin(t, "sign", j.image(), "--key", w.keys["image-key"]); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := j.run(steps); err != nil {
		t.Errorf("signed: %v\n%s", err, out)
	}
	blanks := map[string]string{}
	for name := range j.values("") {
		blanks[name] = "<" + name + ">"
	}
	if out, err := j.run(j.steps(verify, blanks)); err == nil || !strings.Contains(out, "fill in KEY and SHA256") {
		t.Errorf("not filled in: %v\n%s", err, out)
	}
}
