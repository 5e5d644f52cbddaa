package kubelet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/oke-sign/oke-sign/test/cluster/kubelet"
	"github.com/oke-sign/oke-sign/test/cluster/kubelet/kubetest"
)

func TestMain(m *testing.M) {
	if err := kubelet.Child(os.Args[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(128)
	}
	if os.Args[0] == holderName {
		fmt.Fprintln(os.Stderr, hold())
		os.Exit(1)
	}
	os.Exit(kubetest.Main(m))
}

// childInput is the input of another process that runs a kubelet.
type childInput struct {
	Config       rest.TLSClientConfig
	Host         string
	Dir, Program string
}

const (
	holderName = "holder"
	childNode  = "held"
)

// hold runs a kubelet until it is killed.
func hold() error {
	var h childInput
	if err := json.NewDecoder(os.Stdin).Decode(&h); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(&rest.Config{Host: h.Host, TLSClientConfig: h.Config})
	if err != nil {
		return err
	}
	return kubelet.New(settings(client, childNode, "10.244.2.0/24", h)).Run(context.Background())
}

func settings(client kubernetes.Interface, node, prefix string, h childInput) kubelet.Config {
	return kubelet.Config{
		Client: client, Node: node, Prefix: netip.MustParsePrefix(prefix), Dir: h.Dir,
		Programs: map[string]kubelet.Program{image: {Path: h.Program, Args: func(pod *corev1.Pod, _ *corev1.Container, args []string) []string {
			return append(args, "--listen="+pod.Status.PodIP+":8080")
		}}},
		Log: slog.New(slog.DiscardHandler), Registries: loopback{},
	}
}

const (
	namespace = "default"
	nodeName  = "processes"
	image     = "registry.test/team/program"
)

// machine is one Node and its API server.
type machine struct {
	config  *rest.Config
	client  kubernetes.Interface
	dir     string
	program string
	kubelet *kubelet.Kubelet
	stop    func()
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	config := kubetest.API(t)
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{config: config, client: client, dir: t.TempDir()}
	m.program = filepath.Join(m.dir, "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", m.program, "./testdata/program")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	// In a cluster, controllers do this.
	for _, o := range []func() error{
		func() error {
			_, err := client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
			return err
		},
		func() error {
			_, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": string(config.CAData)},
			}, metav1.CreateOptions{})
			return err
		},
	} {
		if err := o(); err != nil {
			t.Fatal(err)
		}
	}
	m.start(t)
	return m
}

// start runs the kubelet until stop is called or the test ends.
func (m *machine) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cfg := settings(m.client, nodeName, "10.244.1.0/24", childInput{Dir: m.dir, Program: m.program})
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	m.kubelet = kubelet.New(cfg)
	ended := make(chan error, 1)
	go func() { ended <- m.kubelet.Run(ctx) }()
	stopped := false
	m.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(m.stop)
}

// create creates a Pod on the Node. It adds one listening container if the text has
// none.
func (m *machine) create(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict([]byte(text), &pod); err != nil {
		t.Fatal(err)
	}
	if pod.Spec.NodeName == "" {
		pod.Spec.NodeName = nodeName
	}
	if pod.Spec.Containers == nil {
		pod.Spec.Containers = []corev1.Container{{}}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if c.Name == "" {
			c.Name = "main"
		}
		if c.Image == "" {
			c.Image = image + ":v1"
		}
		if c.ReadinessProbe == nil {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(8080)}}}
		}
	}
	created, err := m.client.CoreV1().Pods(namespace).Create(t.Context(), &pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func (m *machine) pod(t *testing.T, name string) (*corev1.Pod, error) {
	t.Helper()
	return m.client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
}

// await returns the Pod once it meets the condition.
func (m *machine) await(t *testing.T, name string, wanted func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	kubetest.Eventually(t, func() error {
		p, err := m.pod(t, name)
		if err != nil {
			return err
		}
		if pod = p; !wanted(p) {
			status, err := yaml.Marshal(p.Status)
			return errors.Join(fmt.Errorf("status of pod %s:\n%s", name, status), err)
		}
		return nil
	})
	return pod
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func restarts(n int32) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == n }
}

// process returns the kubelet's record of a container.
func (m *machine) process(t *testing.T, pod string) kubelet.Process {
	t.Helper()
	for _, p := range m.kubelet.Processes() {
		if p.Pod == pod {
			return p
		}
	}
	t.Fatalf("no process of pod %s", pod)
	return kubelet.Process{}
}

// call sends a request to the program in the Pod. A refusal is an error.
func call(t *testing.T, method string, pod *corev1.Pod, path string, query url.Values) (string, error) {
	t.Helper()
	u := url.URL{Scheme: "http", Host: pod.Status.PodIP + ":8080", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(t.Context(), method, u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

func mustCall(t *testing.T, method string, pod *corev1.Pod, path string, query url.Values) string {
	t.Helper()
	body, err := call(t, method, pod, path, query)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func read(t *testing.T, pod *corev1.Pod, path string) string {
	t.Helper()
	return mustCall(t, http.MethodGet, pod, "/read", url.Values{"path": {path}})
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestKubelet(t *testing.T) {
	m := newMachine(t)
	t.Run("a container has the same surroundings as in a cluster", m.finds)
	t.Run("a Secret is waited for and followed", m.follows)
	t.Run("probes decide whether a container is ready, and whether it is restarted", m.probes)
	t.Run("a program that ends is restarted", m.restarts)
	t.Run("a deleted Pod's program ends in order", m.ends)
	t.Run("a stubborn program is killed", m.kills)
	t.Run("an image that no program replaces is pulled", m.pulls)
	t.Run("containers start and end in order", m.order)
	t.Run("an unsupported container says why", m.refuses)
	t.Run("the Node exists and stays ready", m.lives)
	t.Run("no program outlives a killed kubelet", m.diesWithKubelet)
	t.Run("a restarted kubelet runs its Pods again", m.comesBack)
}

func (m *machine) finds(t *testing.T) {
	ctx := t.Context()
	_, err := m.client.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"color": "blue", "size": "9"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "login"}, Data: map[string][]byte{"password": []byte("p4ss")},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.create(t, `
metadata:
  name: finds
  labels: {app: finder}
spec:
  securityContext: {runAsUser: 1000, runAsGroup: 999, fsGroup: 998}
  containers:
  - command: [/opt/manager]
    args: [--line=$(POD_NAME).$(NOTHING).$$(POD_NAME)]
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}
    resources: {limits: {cpu: "3"}}
    envFrom:
    - configMapRef: {name: settings}
      prefix: SET_
    - secretRef: {name: not-there, optional: true}
    env:
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: APP, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: CPUS, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: login, key: password}}}
    - {name: MISSING, valueFrom: {secretKeyRef: {name: login, key: user, optional: true}}}
    - {name: BOTH, value: $(POD_NAME)-$(SET_color)}
    volumeMounts:
    - {name: settings, mountPath: /etc/settings}
    - {name: scratch, mountPath: /tmp/scratch}
    - {name: scratch, mountPath: /frozen, readOnly: true, subPath: inner}
    - {name: about, mountPath: /about}
  volumes:
  - {name: settings, configMap: {name: settings, items: [{key: size, path: deep/size}]}}
  - {name: scratch, emptyDir: {}}
  - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
`)
	// The program creates the sub-path, so it does not exist at first.
	kubetest.Eventually(t, func() error {
		dirs, err := filepath.Glob(filepath.Join(m.dir, "pods", "*", "volumes", "scratch"))
		if err != nil || len(dirs) != 1 {
			return fmt.Errorf("volumes: %q, %w", dirs, err)
		}
		return os.MkdirAll(filepath.Join(dirs[0], "inner"), 0o755)
	})
	pod := m.await(t, "finds", ready)

	var got struct {
		Argv, Env []string
		UID, GID  int
		Groups    []int
	}
	if err := json.Unmarshal([]byte(mustCall(t, http.MethodGet, pod, "/found", nil)), &got); err != nil {
		t.Fatal(err)
	}
	ip := pod.Status.PodIP
	if diff := cmp.Diff([]string{"/opt/manager", "--line=finds.$(NOTHING).$(POD_NAME)", "--listen=" + ip + ":8080"}, got.Argv); diff != "" {
		t.Errorf("argv (-want +got):\n%s", diff)
	}
	for _, want := range []string{
		"POD_NAME=finds", "POD_IP=" + ip, "APP=finder", "CPUS=3", "PASSWORD=p4ss", "SET_color=blue", "BOTH=finds-blue",
		"KUBERNETES_SERVICE_HOST=127.96.0.1", "KUBERNETES_SERVICE_PORT=443", "HOSTNAME=finds",
	} {
		if !slices.Contains(got.Env, want) {
			t.Errorf("no %s in the environment %q", want, got.Env)
		}
	}
	if slices.ContainsFunc(got.Env, func(v string) bool { return strings.HasPrefix(v, "MISSING=") }) {
		t.Error("a variable without its source is set")
	}
	if wholeMachine(t) {
		if diff := cmp.Diff([]any{1000, 999, []int{998}}, []any{got.UID, got.GID, got.Groups}); diff != "" {
			t.Errorf("identity (-want +got):\n%s", diff)
		}
	}

	for path, want := range map[string]string{
		"/etc/settings/deep/size": "9",
		"/about/labels":           `app="finder"`,
		"/var/run/secrets/kubernetes.io/serviceaccount/namespace": namespace,
		"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt":    string(m.config.CAData),
	} {
		if got := read(t, pod, path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	bearer := rest.AnonymousClientConfig(m.config)
	bearer.BearerToken = read(t, pod, "/var/run/secrets/kubernetes.io/serviceaccount/token")
	as, err := kubernetes.NewForConfig(bearer)
	if err != nil {
		t.Fatal(err)
	}
	who, err := as.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := who.Status.UserInfo.Username, "system:serviceaccount:default:default"; got != want {
		t.Errorf("the token is of %s, want %s", got, want)
	}

	for path, writable := range map[string]bool{
		"/tmp/scratch/x": true, "/frozen/x": false, "/x": false, "/tmp/x": false, "/etc/settings/x": false, "/proc/self/oom_score_adj": false,
	} {
		if _, err := call(t, http.MethodPut, pod, "/write", url.Values{"path": {path}}); (err == nil) != writable {
			t.Errorf("write %s: %v, want writable %v", path, err, writable)
		}
	}
	// The command, not the program's file name, says where the program is.
	if diff := cmp.Diff("about\ndev\netc\nfrozen\nopt\nproc\ntmp\nvar\n", mustCall(t, http.MethodGet, pod, "/list", url.Values{"path": {"/"}})); diff != "" {
		t.Errorf("root (-want +got):\n%s", diff)
	}
	if !strings.Contains(pod.Status.ContainerStatuses[0].ContainerID, fmt.Sprint(m.process(t, "finds").PID)) {
		t.Errorf("container %s is not process %d", pod.Status.ContainerStatuses[0].ContainerID, m.process(t, "finds").PID)
	}
}

// wholeMachine reports whether users other than root exist here.
func wholeMachine(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/setgroups")
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(string(b), "allow")
}

func (m *machine) follows(t *testing.T) {
	m.create(t, `
metadata: {name: follows}
spec:
  containers:
  - volumeMounts: [{name: cert, mountPath: /certs}]
  volumes: [{name: cert, secret: {secretName: late}}]
`)
	kubetest.Eventually(t, func() error {
		events, err := m.client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=FailedMount,involvedObject.name=follows"})
		if err != nil || len(events.Items) == 0 {
			return fmt.Errorf("no event: %w", err)
		}
		return nil
	})
	if pod, err := m.pod(t, "follows"); err != nil || pod.Status.Phase != corev1.PodPending {
		t.Errorf("the pod is %s, %v; want it to wait for its secret", pod.Status.Phase, err)
	}
	secrets := m.client.CoreV1().Secrets(namespace)
	secret, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "late"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod := m.await(t, "follows", ready)
	if _, err := call(t, http.MethodGet, pod, "/read", url.Values{"path": {"/certs/tls.crt"}}); err == nil {
		t.Error("an empty secret has a certificate")
	}
	for _, content := range []string{"first", "second"} {
		secret.Data = map[string][]byte{"tls.crt": []byte(content), "tls.key": []byte("key of " + content)}
		if secret, err = secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		kubetest.Eventually(t, func() error {
			got, err := call(t, http.MethodGet, pod, "/read", url.Values{"path": {"/certs/tls.crt"}})
			if err != nil || got != content {
				return fmt.Errorf("got %q, want %q: %w", got, content, err)
			}
			return nil
		})
		if got, want := read(t, pod, "/certs/tls.key"), "key of "+content; got != want {
			t.Errorf("next to the new certificate is %q, want %q", got, want)
		}
	}
}

func (m *machine) probes(t *testing.T) {
	m.create(t, `
metadata: {name: probes}
spec:
  containers:
  - ports: [{name: health, containerPort: 8080}]
    startupProbe: {tcpSocket: {port: health}, periodSeconds: 1}
    readinessProbe: {httpGet: {path: /readyz, port: health}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 2}
`)
	pod := m.await(t, "probes", ready)
	mustCall(t, http.MethodPut, pod, "/readyz", url.Values{"is": {"false"}})
	m.await(t, "probes", func(p *corev1.Pod) bool { return !ready(p) })
	mustCall(t, http.MethodPut, pod, "/readyz", url.Values{"is": {"true"}})
	m.await(t, "probes", restarts(0))
	before := m.process(t, "probes").PID
	mustCall(t, http.MethodPut, pod, "/healthz", url.Values{"is": {"false"}})
	m.await(t, "probes", restarts(1))
	if alive(before) {
		t.Errorf("process %d is alive though its probe failed", before)
	}
}

func (m *machine) restarts(t *testing.T) {
	m.create(t, "metadata: {name: restarts}\nspec: {}")
	pod := m.await(t, "restarts", ready)
	if _, err := call(t, http.MethodPut, pod, "/exit", url.Values{"code": {"7"}}); err == nil {
		t.Error("the program answered though it should end")
	}
	pod = m.await(t, "restarts", restarts(1))
	if got := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated; got == nil || got.ExitCode != 7 {
		t.Errorf("last state %v, want exit code 7", got)
	}
	if err := syscall.Kill(m.process(t, "restarts").PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	pod = m.await(t, "restarts", restarts(2))
	if got := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated; got == nil || got.ExitCode != 137 {
		t.Errorf("last state %v, want exit code 137", got)
	}
}

// deleted waits until the Pod's object and its process are gone.
func (m *machine) deleted(t *testing.T, name string, pid int) {
	t.Helper()
	kubetest.Eventually(t, func() error {
		if _, err := m.pod(t, name); !apierrors.IsNotFound(err) {
			return fmt.Errorf("pod %s is there: %w", name, err)
		}
		return nil
	})
	if alive(pid) {
		t.Errorf("process %d of pod %s is alive", pid, name)
	}
}

func (m *machine) ends(t *testing.T) {
	m.create(t, "metadata: {name: ends}\nspec: {}")
	m.await(t, "ends", ready)
	process := m.process(t, "ends")
	if err := m.client.CoreV1().Pods(namespace).Delete(t.Context(), "ends", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	m.deleted(t, "ends", process.PID)
	log, err := os.ReadFile(process.Log)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(log), "SIGTERM\n"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
}

func (m *machine) kills(t *testing.T) {
	for name, grace := range map[string]*int64{"slow": ptr.To(int64(1)), "forced": ptr.To(int64(0))} {
		m.create(t, "metadata: {name: "+name+"}\nspec: {containers: [{args: [--stubborn]}]}")
		m.await(t, name, ready)
		pid := m.process(t, name).PID
		if err := m.client.CoreV1().Pods(namespace).Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: grace}); err != nil {
			t.Fatal(err)
		}
		if *grace > 0 {
			m.deleted(t, name, pid)
			continue
		}
		kubetest.Eventually(t, func() error { // the object disappears before its process ends
			if alive(pid) {
				return fmt.Errorf("process %d lives", pid)
			}
			return nil
		})
	}
}

func (m *machine) order(t *testing.T) {
	shared := filepath.Join(m.dir, "shared")
	if err := os.Mkdir(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	m.create(t, `
metadata: {name: order}
spec:
  restartPolicy: OnFailure
  initContainers:
  - {name: first, image: `+image+`, args: [--write=/shared/log, --line=first, --exit=0], volumeMounts: [{name: shared, mountPath: /shared}]}
  - {name: beside, image: `+image+`, restartPolicy: Always, args: [--write=/shared/log, --line=beside], startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}, volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - {name: main, args: [--write=/shared/log, --line=main, --exit=0], volumeMounts: [{name: shared, mountPath: /shared}]}
  volumes: [{name: shared, hostPath: {path: `+shared+`}}]
`)
	pod := m.await(t, "order", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	log, err := os.ReadFile(filepath.Join(shared, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("first\nbeside\nmain\n", string(log)); diff != "" {
		t.Errorf("started (-want +got):\n%s", diff)
	}
	if pod.Status.InitContainerStatuses[1].State.Terminated == nil {
		t.Error("the sidecar runs though the container that it serves has ended")
	}

	failing := "metadata: {name: fails}\nspec: {restartPolicy: Never, containers: [{args: [--exit=3]}]}"
	m.create(t, failing)
	m.await(t, "fails", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if err := m.client.CoreV1().Pods(namespace).Delete(t.Context(), "fails", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	kubetest.Eventually(t, func() error {
		if _, err := m.pod(t, "fails"); !apierrors.IsNotFound(err) {
			return fmt.Errorf("pod is there: %w", err)
		}
		return nil
	})
}

func (m *machine) refuses(t *testing.T) {
	for name, c := range map[string]struct {
		container corev1.Container
		volume    *corev1.Volume
		reason    string
	}{
		"unknown-image": {container: corev1.Container{Image: "nginx"}, reason: "ErrImagePull"},
		"no-secret": {container: corev1.Container{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "not-there"},
		}}}}, reason: "CreateContainerConfigError"},
		"exec-probe": {container: corev1.Container{LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
			Exec: &corev1.ExecAction{Command: []string{"true"}},
		}}}, reason: "CreateContainerError"},
		"grpc-probe": {container: corev1.Container{ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
			GRPC: &corev1.GRPCAction{Port: 1},
		}}}, reason: "CreateContainerError"},
		"hook": {container: corev1.Container{Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
			TCPSocket: nil, HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(1)},
		}}}, reason: "CreateContainerError"},
		"root-that-must-not-be": {container: corev1.Container{SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(int64(0)),
		}}, reason: "CreateContainerConfigError"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := yaml.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{c.container}}})
			if err != nil {
				t.Fatal(err)
			}
			m.create(t, string(text))
			pod := m.await(t, name, func(p *corev1.Pod) bool {
				return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
					p.Status.ContainerStatuses[0].State.Waiting.Reason == c.reason
			})
			if pod.Status.Phase != corev1.PodPending {
				t.Errorf("phase %s", pod.Status.Phase)
			}
		})
	}
}

func (m *machine) lives(t *testing.T) {
	node, err := m.client.CoreV1().Nodes().Get(t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c := node.Status.Conditions; len(c) != 1 || c[0].Type != corev1.NodeReady || c[0].Status != corev1.ConditionTrue {
		t.Errorf("conditions %v", c)
	}
	if !slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == kubelet.Taint && taint.Effect == corev1.TaintEffectNoSchedule
	}) {
		t.Errorf("taints %v", node.Spec.Taints)
	}
	renewed := func() time.Time {
		lease, err := m.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), nodeName, metav1.GetOptions{})
		if err != nil || lease.Spec.RenewTime == nil {
			return time.Time{}
		}
		return lease.Spec.RenewTime.Time
	}
	var first time.Time
	kubetest.Eventually(t, func() error {
		if first = renewed(); first.IsZero() {
			return errors.New("no lease")
		}
		return nil
	})
	kubetest.Eventually(t, func() error {
		if !renewed().After(first) {
			return errors.New("the lease is not renewed")
		}
		return nil
	})
}

func (m *machine) diesWithKubelet(t *testing.T) {
	config, err := json.Marshal(childInput{Config: m.config.TLSClientConfig, Host: m.config.Host, Dir: t.TempDir(), Program: m.program})
	if err != nil {
		t.Fatal(err)
	}
	holder := &exec.Cmd{Path: "/proc/self/exe", Args: []string{holderName}, Stdin: bytes.NewReader(config), Stderr: t.Output()}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	m.create(t, "metadata: {name: held}\nspec: {nodeName: "+childNode+", containers: [{args: [--stubborn], securityContext: {runAsUser: 1000}}]}")
	pod := m.await(t, "held", ready)
	mustCall(t, http.MethodGet, pod, "/readyz", nil)
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // killed
	kubetest.Eventually(t, func() error {
		if _, err := call(t, http.MethodGet, pod, "/readyz", nil); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("the program answers: %w", err)
		}
		return nil
	})
}

// comesBack runs last, because it leaves another kubelet behind.
func (m *machine) comesBack(t *testing.T) {
	m.create(t, "metadata: {name: back}\nspec: {}")
	before := m.await(t, "back", ready)
	var pids []int
	for _, p := range m.kubelet.Processes() {
		pids = append(pids, p.PID)
	}
	m.stop()
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d has outlived its kubelet", pid)
		}
	}
	if len(m.kubelet.Processes()) != 0 {
		t.Errorf("an ended kubelet has processes: %v", m.kubelet.Processes())
	}
	m.start(t)
	after := m.await(t, "back", restarts(1))
	if before.Status.PodIP != after.Status.PodIP {
		t.Errorf("the pod's address changed from %s to %s", before.Status.PodIP, after.Status.PodIP)
	}
}
