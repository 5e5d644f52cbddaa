package e2e_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/test/ociclient"
	"github.com/oke-sign/oke-sign/test/pki"
)

// installation is oke-sign as its users install it, with helm alone.
type installation struct {
	root string // of the checkout
	env  []string
	own  space // oke-sign's namespace
}

// TestInstall follows the charts from a cluster with neither Gatekeeper nor oke-sign
// until oke-sign is removed again. Each part starts where the one before it ended.
func TestInstall(t *testing.T) {
	if r := (space{}).kubectl(t, "get", "crds", "-o", "name").succeeds(t); strings.Contains(r.stdout, "gatekeeper.sh") {
		t.Skip("for a cluster without Gatekeeper: cluster run --bare")
	}
	i := newInstallation(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"from nothing to a first denial and a first admission", i.firstSteps},
		{"started while OCI does not answer the cluster", i.unvouched},
		{"the provider's image, from OCI Registry and under its own policy", i.ownImage},
		{"applied again and upgraded under load", i.again},
		{"an unsigned provider", i.unsigned},
		{"a deleted certificate", i.deletedCertificate},
		{"certificates as files", i.files},
		{"images that need a scan", i.scans},
		{"uninstalled", i.uninstall},
		{"installed in another namespace", i.elsewhere},
	} {
		if !t.Run(part.name, part.run) {
			break
		}
	}
}

// newInstallation prepares a user's starting point.
func newInstallation(t *testing.T) *installation {
	t.Helper()
	root, err := filepath.Abs(".")
	for err == nil && !exists(filepath.Join(root, "charts")) {
		if root == "/" {
			t.Fatal("not in a checkout: no charts above")
		}
		root = filepath.Dir(root)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &installation{root: root, env: chartRepository(t), own: space{name: "oke-sign"}}
}

// furnish adds to a namespace what the provider needs on this machine, and sets the
// strictest Pod Security level.
func furnish(t *testing.T, s space) {
	t.Helper()
	oci := filepath.Join(os.Getenv("OKE_SIGN_CLUSTER"), "oci")
	s.kubectl(t, "label", "namespace", s.name, "pod-security.kubernetes.io/enforce=restricted").succeeds(t)
	s.kubectl(t, "create", "configmap", "authorities", "--from-file=ca.pem="+filepath.Join(oci, "ca.pem")).succeeds(t)
	s.kubectl(t, "create", "secret", "generic", "ocir", "--type=kubernetes.io/dockerconfigjson",
		"--from-file=.dockerconfigjson="+filepath.Join(oci, "docker", "config.json")).succeeds(t)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// ociValues returns the chart's values for this cluster. The provider signs in as a
// workload of an enhanced cluster, the chart's default. The values add what the chart
// cannot know: OCI is behind a proxy, and Pods share their addresses.
const ociValues = `
oci: {region: us-ashburn-1}
extraArgs: [--addr=$(POD_IP):8443, --health-addr=$(POD_IP):8081]
extraEnv:
  - {name: POD_IP, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: status.podIP}}}
  - {name: HTTPS_PROXY, value: "http://127.0.0.1:8040"}
  - {name: SSL_CERT_FILE, value: /etc/authorities/ca.pem}
extraVolumes: [{name: authorities, configMap: {name: authorities}}]
extraVolumeMounts: [{name: authorities, mountPath: /etc/authorities, readOnly: true}]
`

// block returns the commands in a section of a README, in the shell's form.
func block(t *testing.T, file, heading string) []string {
	t.Helper()
	readme, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(readme), "\n## "+heading+"\n")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatalf("%s has no section %q", file, heading)
	}
	var commands []string
	continued := false
	for line := range strings.Lines(section) {
		command, indented := strings.CutPrefix(line, "    ")
		switch {
		case !indented:
			continue
		case continued:
			commands[len(commands)-1] += command
		default:
			commands = append(commands, command)
		}
		continued = strings.HasSuffix(line, "\\\n")
	}
	return commands
}

// firstSteps runs the commands of the README unchanged.
func (i *installation) firstSteps(t *testing.T) {
	commands := block(t, filepath.Join(i.root, "README.md"), "Install")
	if len(commands) == 0 || len(commands) > 5 {
		t.Fatalf("%d commands, want 5 at most: %q", len(commands), commands)
	}
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "oci.yaml"), []byte(ociValues), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(i.root, "charts"), filepath.Join(folder, "charts")); err != nil {
		t.Fatal(err)
	}
	home := space{name: "default"}
	image := home.push(t, "first")
	env := append(slices.Clone(i.env), "KEY="+imageKey.ID, "IMAGE="+image)
	checked := 0
	for _, command := range commands {
		began := time.Now()
		r := runIn(t, folder, env, "bash", "-euc", command).succeeds(t)
		t.Logf("%s\n%.1f s\n%s%s", strings.TrimSpace(command), time.Since(began).Seconds(), r.stdout, r.stderr)
		checked++
		switch {
		case strings.Contains(command, "create namespace "):
			furnish(t, i.own)
		case strings.Contains(command, "oke-sign-policy"):
			r.says(t, "From now on Gatekeeper DENIES a new Pod unless")
			i.withoutRights(t)
			i.allow(t)
			i.enforced(t)
		case strings.Contains(command, "helm install oke-sign "):
			r.says(t, "Gatekeeper denies each request that it cannot review (failurePolicy Fail, 5 s).", "Enforced: NOTHING yet.", "kubectl oke-sign iam --workload oke-sign/oke-sign --cluster ")
		case strings.Contains(command, "create deployment"):
			r.says(t, "Warning: ", ": unsigned: ")
			home.fails(t, "ReplicaSet", "web-", ": unsigned: ")
			home.ready(t, soon, "web", "0/1")
		default:
			checked--
		}
	}
	if checked != 4 {
		t.Fatalf("checked %d commands, want 4: the commands in the README have changed", checked)
	}
	began := time.Now()
	home.ready(t, 4*time.Minute, "web", "1/1")
	t.Logf("it ran %.0f s after its image was signed", time.Since(began).Seconds())
	okeSign(t, "doctor").succeeds(t).says(t, "the image policy is enforced")
}

// withoutRights runs the provider before its service account has rights in OCI. OCI
// knows the account, so the provider is ready, but it finds nothing.
func (i *installation) withoutRights(t *testing.T) {
	t.Helper()
	i.holds(t)
	home := space{name: "default"}
	image := home.signed(t, "signed-already", imageKey)
	eventually(t, soon, "the provider says that it may not read", func() error {
		r := home.kubectl(t, "run", "signed", "--image="+image, "--dry-run=server").fails(t, denies)
		if !strings.Contains(r.stderr, ": image-not-found: no such image, or this identity may not read it") {
			return errors.New(r.stderr)
		}
		return nil
	})
}

// allow adds the provider's IAM statements, as the plugin prints them.
func (i *installation) allow(t *testing.T, flags ...string) {
	t.Helper()
	clusters, err := cloud.Clusters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tenancy, err := cloud.Tenancy()
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"iam", "--cluster", clusters["demo"], "--workload", "oke-sign/oke-sign", "-o", "name"}, flags...)
	statements := strings.Split(strings.TrimSpace(okeSign(t, args...).succeeds(t).stdout), "\n")
	if err := cloud.AddPolicy(t.Context(), tenancy, slug("oke-sign"+strings.Join(flags, "")), statements...); err != nil {
		t.Fatal(err)
	}
}

// holds waits until the plugin reports that the policy is enforced.
func (i *installation) holds(t *testing.T) {
	t.Helper()
	eventually(t, soon, "the policy holds", func() error {
		r := okeSign(t, "policy", "get", "-o", "json")
		if r.err == nil && !strings.Contains(r.stdout, `"enforced": true`) {
			return errors.New(r.stdout)
		}
		return r.err
	})
}

// enforced waits until the policy is enforced and the provider answers. No unsigned
// image is admitted even before the provider answers. Kubernetes may send requests to
// new Pods only a second after it reports them as ready.
func (i *installation) enforced(t *testing.T) {
	t.Helper()
	i.holds(t)
	home := space{name: "default"}
	image := home.push(t, "unsigned")
	eventually(t, soon, "the provider decides", func() error {
		r := home.kubectl(t, "run", "unsigned", "--image="+image, "--dry-run=server").fails(t, denies)
		if !strings.Contains(r.stderr, ": unsigned: ") {
			return errors.New(r.stderr)
		}
		return nil
	})
}

// unvouched restarts the provider while OCI does not answer the cluster. The provider
// waits, and says for what.
func (i *installation) unvouched(t *testing.T) {
	t.Cleanup(func() { _ = cluster("resume", "oci-emulator") }) // fails if it runs
	control(t, "pause", "oci-emulator")
	i.own.kubectl(t, "rollout", "restart", "deployment/oke-sign").succeeds(t)
	eventually(t, soon, "the new replica says why it is not ready", func() error {
		for _, pod := range i.pods(t) {
			r := cluster("logs", "oke-sign/"+pod.Name+"/provider")
			if pod.Ready == "false" && strings.Contains(r.stdout, `"msg":"not ready","error":"asking https://127.96.0.1:12250/`) {
				return nil
			}
		}
		return errors.New("no replica that is not ready does")
	})
	control(t, "resume", "oci-emulator")
	i.own.kubectl(t, "rollout", "status", "deployment/oke-sign", "--timeout=1m").succeeds(t)
	r := i.own.kubectl(t, "get", "pods", "-l", "app.kubernetes.io/name=oke-sign", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}").succeeds(t)
	if strings.Trim(r.stdout, "0 ") != "" {
		t.Errorf("it restarted: %s", r.stdout)
	}
	i.enforced(t)
}

// helm runs helm in the checkout.
func (i *installation) helm(t *testing.T, args ...string) result {
	t.Helper()
	return runIn(t, i.root, i.env, "helm", args...)
}

// upgrade upgrades a release with its values and more.
func (i *installation) upgrade(t *testing.T, chart string, values ...string) result {
	t.Helper()
	args := []string{"upgrade", chart, filepath.Join("charts", chart), "--namespace", i.own.name, "--reset-then-reuse-values", "--wait", "--timeout", "1m"}
	for _, v := range values {
		args = append(args, "--set", v)
	}
	return i.helm(t, args...)
}

const providerRepository = ociclient.Registry + "oke-sign-provider"

// pack packs the locally built provider into an image. It stores the image in OCI
// Registry and returns the digest.
func (i *installation) pack(t *testing.T, version string) string {
	t.Helper()
	program, err := exec.LookPath("oke-sign-provider")
	if err != nil {
		t.Fatal(err)
	}
	env := append(slices.Clone(i.env), "DOCKER_CONFIG="+filepath.Join(os.Getenv("OKE_SIGN_CLUSTER"), "oci", "docker"))
	r := runIn(t, i.root, env, "image", "--out", filepath.Join(t.TempDir(), "layout"), "--version", version,
		"--push", providerRepository+":"+version, runtime.GOOS+"/"+runtime.GOARCH+"="+program).succeeds(t)
	return strings.TrimSpace(r.stdout)
}

// ownImage makes the chart run the released image, stored in OCI Registry and signed
// there. Nothing exempts the image from the policy.
func (i *installation) ownImage(t *testing.T) {
	digest := i.pack(t, "1.0.0")
	image := providerRepository + "@" + digest
	okeSign(t, "sign", image, "--key", imageKey.ID).succeeds(t)

	i.exempts(t, "kube-system")
	i.upgrade(t, "oke-sign-policy", "installation.namespace=").succeeds(t)
	i.enforced(t)
	i.own.kubectl(t, "create", "deployment", "by-tag", "--image="+providerRepository+":1.0.0", "--dry-run=server").succeeds(t).says(t, "Warning: ", ": no-digest: ")
	r := i.upgrade(t, "oke-sign", "image.repository="+providerRepository, "image.digest="+digest, "imagePullSecrets[0].name=ocir").succeeds(t)
	if w := r.warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	for _, pod := range i.pods(t) {
		if pod.Image != image || pod.Ready != "true" {
			t.Errorf("a replica is %+v; want it to run %s", pod, image)
		}
	}
	// The provider still decides when it runs from this image, which has no other
	// files.
	home := space{name: "default"}
	home.kubectl(t, "run", "unsigned", "--image="+home.push(t, "other")).fails(t, denies, ": unsigned: ")
}

// exempts makes Gatekeeper's webhook skip these namespaces, and Gatekeeper's own.
func (i *installation) exempts(t *testing.T, namespaces ...string) {
	t.Helper()
	i.helm(t, "upgrade", "gatekeeper", "gatekeeper", "--repo", charts, "--version", "3.23.1", "--namespace", "gatekeeper-system", "--wait", "--reuse-values",
		"--set", `validatingWebhookExemptNamespacesLabels.kubernetes\.io/metadata\.name={`+strings.Join(namespaces, ",")+`}`).succeeds(t)
}

type replica struct{ Name, Image, Ready string }

// pods returns the provider's Pods that are not being deleted.
func (i *installation) pods(t *testing.T) []replica {
	t.Helper()
	r := i.own.kubectl(t, "get", "pods", "-l", "app.kubernetes.io/name=oke-sign", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.spec.containers[0].image} {.status.containerStatuses[0].ready} {.metadata.deletionTimestamp}{"\n"}{end}`).succeeds(t)
	var all []replica
	for line := range strings.Lines(r.stdout) {
		if f := strings.Fields(line); len(f) == 3 {
			all = append(all, replica{f[0], f[1], f[2]})
		}
	}
	return all
}

// values writes the values of an installed release to a file.
func (i *installation) values(t *testing.T, release string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(i.helm(t, "get", "values", release, "--namespace", i.own.name).succeeds(t).stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, user, _ := strings.Cut(string(text), "\n") // skip helm's heading
	if err := os.WriteFile(file, []byte(user), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// apply renders a chart like a GitOps tool, without access to the cluster. It applies
// the result under the field manager of the previous tool, because a tool does not
// conflict with itself.
func (i *installation) apply(t *testing.T, chart string) result {
	t.Helper()
	rendered := i.helm(t, "template", chart, filepath.Join("charts", chart), "--namespace", i.own.name, "--values", i.values(t, chart)).succeeds(t)
	return i.own.pipe(t, rendered.stdout, "apply", "--server-side", "--field-manager=helm", "-f", "-").succeeds(t)
}

// again applies and upgrades the charts while Pods are created all the time.
func (i *installation) again(t *testing.T) {
	load := busy(t)
	ca := published(t)
	before := i.pods(t)
	for range 2 {
		for _, chart := range []string{"oke-sign", "oke-sign-policy"} {
			i.apply(t, chart)
		}
	}
	load.more(t, "after it was applied again", 200)
	if now := published(t); string(now) != string(ca) {
		t.Error("applied again, the charts change the provider's CA")
	}
	if now := i.pods(t); !slices.Equal(now, before) {
		t.Errorf("applied again, the charts change the replicas: %v before, %v now", before, now)
	}
	i.upgrade(t, "oke-sign", "podAnnotations.upgraded=yes").succeeds(t)
	i.upgrade(t, "oke-sign-policy", fmt.Sprintf("keys={%s,%s}", imageKey.ID, releaseKey.ID)).succeeds(t)
	load.more(t, "after upgrades", 200)
	load.none(t, nil)
}

// unsigned upgrades the provider to an unsigned image. The new Pods are denied, and the
// running ones still decide.
func (i *installation) unsigned(t *testing.T) {
	before := i.pods(t)
	args := []string{"upgrade", "oke-sign", "charts/oke-sign", "--namespace", i.own.name, "--reset-then-reuse-values", "--set", "image.digest=" + i.pack(t, "1.0.1")}
	i.helm(t, args...).succeeds(t).says(t, "containers/provider: unsigned: ")
	i.own.fails(t, "ReplicaSet", "oke-sign-", "containers/provider: unsigned: ")
	if now := i.pods(t); !slices.Equal(now, before) {
		t.Errorf("%v before, %v now", before, now)
	}
	i.helm(t, "rollback", "oke-sign", "--namespace", i.own.name, "--wait", "--timeout", "1m").succeeds(t)
}

// deletedCertificate deletes the Secret, which the provider has no right to create. The
// provider uses its current certificate until the chart is applied again.
func (i *installation) deletedCertificate(t *testing.T) {
	load := busy(t)
	i.own.kubectl(t, "delete", "secret", "oke-sign-tls").succeeds(t)
	load.more(t, "without the Secret", 200)
	eventually(t, soon, "its log says so", func() error {
		for _, pod := range i.pods(t) {
			if log := cluster("logs", "oke-sign/"+pod.Name+"/provider").succeeds(t).stdout; !strings.Contains(log, "the serving certificate cannot be checked or renewed") {
				return fmt.Errorf("not that of %s", pod.Name)
			}
		}
		return nil
	})
	i.apply(t, "oke-sign")
	eventually(t, soon, "the Secret is filled", func() error {
		r := i.own.kubectl(t, "get", "secret", "oke-sign-tls", "-o", `jsonpath={.data.tls\.crt}`)
		if r.err == nil && r.stdout == "" {
			return errors.New("it is empty")
		}
		return r.err
	})
	i.own.kubectl(t, "rollout", "restart", "deployment/oke-sign").succeeds(t)
	i.own.kubectl(t, "rollout", "status", "deployment/oke-sign", "--timeout=1m").succeeds(t)
	load.more(t, "with another one", 200)
	load.none(t, nil)
}

// scans requires a scan of images that are already signed.
func (i *installation) scans(t *testing.T) {
	home := space{name: "default"}
	scanned, never := home.signed(t, "scanned", imageKey), home.signed(t, "never-scanned", imageKey)
	setup := []string{"scan", "setup", "--compartment", vault.CompartmentID, "--repository", "default/scanned"}
	missing := okeSign(t, setup...).fails(t, "missing")
	var statements []string
	for line := range strings.Lines(missing.stdout) {
		if words := strings.Fields(line); len(words) > 2 && words[1] == "missing" {
			statements = append(statements, strings.Join(words[2:], " "))
		}
	}
	if err := cloud.AddPolicy(t.Context(), vault.CompartmentID, "scanning", statements...); err != nil {
		t.Fatal(err)
	}
	okeSign(t, setup...).succeeds(t)
	i.upgrade(t, "oke-sign-policy", "scan.enabled=true").succeeds(t)
	i.enforced(t)
	eventually(t, soon, "the provider says that it may not see scans", func() error {
		r := home.kubectl(t, "run", "scanned", "--image="+scanned, "--dry-run=server").fails(t, denies)
		if !strings.Contains(r.stderr, ": no-answer: ") || !strings.Contains(r.stderr, "this identity may not list the scan results") {
			return errors.New(r.stderr)
		}
		return nil
	})
	i.allow(t, "--scans")
	eventually(t, soon, "an image without a scan is denied", func() error {
		if r := home.kubectl(t, "run", "never", "--image="+never, "--dry-run=server"); !strings.Contains(r.stderr, ": not-scanned: ") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	eventually(t, soon, "a scanned image is admitted", func() error {
		return home.kubectl(t, "run", "scanned", "--image="+scanned).err
	})
}

// files gives the provider a certificate and Gatekeeper's CA as files, so it needs no
// rights in the cluster. Afterwards the provider creates its certificate itself again.
func (i *installation) files(t *testing.T) {
	authority, err := pki.NewAuthority("ours")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(pki.Leaf{Names: []string{"oke-sign.oke-sign.svc"}})
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	webhooks := "validatingwebhookconfiguration/gatekeeper-validating-webhook-configuration"
	gatekeepers, err := base64.StdEncoding.DecodeString(space{}.kubectl(t, "get", webhooks, "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}").succeeds(t).stdout)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"tls.crt": pair.Cert, "tls.key": pair.Key, "both.pem": append(published(t), authority.PEM()...), "new.pem": authority.PEM(), "ca.crt": gatekeepers} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i.own.kubectl(t, "create", "secret", "tls", "ours", "--cert="+filepath.Join(folder, "tls.crt"), "--key="+filepath.Join(folder, "tls.key")).succeeds(t)
	i.own.kubectl(t, "create", "configmap", "gatekeepers", "--from-file="+filepath.Join(folder, "ca.crt")).succeeds(t)
	for _, ca := range []string{"both.pem", "new.pem"} {
		i.helm(t, "upgrade", "oke-sign", "charts/oke-sign", "--namespace", i.own.name, "--reset-then-reuse-values", "--wait", "--timeout", "1m",
			"--take-ownership", "--force-conflicts", "--set", "certificate.existingSecret=ours", "--set", "gatekeeper.clientCAConfigMap=gatekeepers",
			"--set-file", "certificate.caBundle="+filepath.Join(folder, ca)).succeeds(t)
		// Replicas with self-made certificates still existed.
		if want, err := os.ReadFile(filepath.Join(folder, ca)); err != nil || string(published(t)) != string(want) {
			t.Errorf("the Provider object has other CAs than those of %s: %v\n%s", ca, err, published(t))
		}
	}
	home := space{name: "default"}
	home.kubectl(t, "run", "unsigned", "--image="+home.push(t, "files")).fails(t, denies, ": unsigned: ")
	for _, resource := range []string{"clusterrolebinding", "role", "rolebinding", "secret/oke-sign-tls"} {
		if !strings.Contains(resource, "/") {
			resource += "/oke-sign"
		}
		i.own.kubectl(t, "get", resource).fails(t, "NotFound")
	}
	i.own.kubectl(t, "auth", "can-i", "get", "secrets", "--as=system:serviceaccount:oke-sign:oke-sign").fails(t, "no")

	i.upgrade(t, "oke-sign", "certificate.existingSecret=", "certificate.caBundle=", "gatekeeper.clientCAConfigMap=").succeeds(t)
	began := time.Now()
	i.enforced(t)
	t.Logf("Gatekeeper used the provider again after %.1f s", time.Since(began).Seconds())
}

// uninstall checks that the cluster then admits everything and has no object of
// oke-sign. It also uninstalls in the wrong order, and after an installation beside
// leftovers.
func (i *installation) uninstall(t *testing.T) {
	home := space{name: "default"}
	everything := func() {
		t.Helper()
		eventually(t, soon, "everything is admitted", func() error {
			return home.kubectl(t, "run", "anything", "--image="+dockerHub, "--dry-run=server").err
		})
	}
	own := []string{"--namespace", i.own.name}
	kept := map[string]string{"oke-sign": i.values(t, "oke-sign"), "oke-sign-policy": i.values(t, "oke-sign-policy")}
	commands := i.documented(t)
	for _, command := range commands[:2] {
		runIn(t, i.root, i.env, "bash", "-euc", command).succeeds(t)
	}
	everything()

	for _, chart := range []string{"oke-sign", "oke-sign-policy"} {
		i.helm(t, append([]string{"install", chart, filepath.Join("charts", chart), "--wait", "--values", kept[chart]}, own...)...).succeeds(t)
	}
	i.enforced(t)
	i.helm(t, append([]string{"uninstall", "oke-sign", "--wait"}, own...)...).succeeds(t)
	everything()
	i.helm(t, append([]string{"uninstall", "oke-sign-policy", "--wait"}, own...)...).succeeds(t)
	runIn(t, i.root, i.env, "bash", "-euc", commands[2]).succeeds(t)

	for what, args := range map[string][]string{
		"templates": {"constrainttemplates"},
		"cluster":   {"clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/part-of=oke-sign"},
		"providers": {"providers"},
		"namespace": {"all,secrets,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets", "-l", "app.kubernetes.io/part-of=oke-sign"},
	} {
		eventually(t, soon, "nothing is left", func() error {
			if r := i.own.kubectl(t, append([]string{"get", "-o", "name"}, args...)...).succeeds(t); r.stdout != "" {
				return fmt.Errorf("%s: %s", what, r.stdout)
			}
			return nil
		})
	}
	home.kubectl(t, "scale", "deployment", "web", "--replicas=2").succeeds(t)
	home.ready(t, soon, "web", "2/2")
}

// documented returns the chart README's commands for uninstalling.
func (i *installation) documented(t *testing.T) []string {
	t.Helper()
	commands := block(t, filepath.Join(i.root, "charts", "oke-sign", "README.md"), "Upgrade and uninstall")
	if len(commands) != 3 {
		t.Fatalf("%d commands, want 3: %q", len(commands), commands)
	}
	return commands
}

// elsewhere installs oke-sign in a namespace with another name. The usual name is then
// free, and the policy applies in a namespace that takes it.
func (i *installation) elsewhere(t *testing.T) {
	usual, signing := i.own, space{name: "signing"}
	usual.kubectl(t, "delete", "namespace", usual.name, "--wait", "--timeout=50s").succeeds(t)
	signing.kubectl(t, "create", "namespace", signing.name).succeeds(t)
	furnish(t, signing)
	i.exempts(t, "kube-system", signing.name)
	values := filepath.Join(t.TempDir(), "oci.yaml")
	if err := os.WriteFile(values, []byte(ociValues), 0o600); err != nil {
		t.Fatal(err)
	}
	install := func(chart string, args ...string) result {
		return i.helm(t, append([]string{"install", chart, filepath.Join("charts", chart), "--namespace", signing.name, "--wait", "--timeout", "1m"}, args...)...)
	}
	install("oke-sign", "--values", values).succeeds(t)
	keys := "keys={" + imageKey.ID + "}"
	install("oke-sign-policy", "--set", keys).fails(t, "installation.namespace is oke-sign, but Provider oke-sign leads to namespace signing")
	install("oke-sign-policy", "--set", keys, "--set", "installation.namespace="+signing.name).succeeds(t)
	i.holds(t)
	i.exempts(t, "kube-system", signing.name, usual.name)
	r := okeSign(t, "doctor").fails(t, "namespace "+usual.name+" is exempt and does not exist")
	if !strings.Contains(r.err.Error(), "exit status 3") {
		t.Errorf("doctor does not exit with 3: %v", r.err)
	}
	i.exempts(t, "kube-system", signing.name)
	okeSign(t, "doctor").succeeds(t)

	usual.kubectl(t, "create", "namespace", usual.name).succeeds(t)
	image := usual.push(t, "taken")
	eventually(t, soon, "the policy applies in the namespace of the usual name", func() error {
		r := usual.kubectl(t, "run", "taken", "--image="+image, "--dry-run=server")
		if r.err == nil || !strings.Contains(r.stderr, denies) {
			return fmt.Errorf("not denied: %s%s", r.stdout, r.stderr)
		}
		return nil
	})
	// Only Pod Security denies this Pod.
	signing.kubectl(t, "run", "exempt", "--image="+image, "--dry-run=server").fails(t, "violates PodSecurity")
}
