package simulate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
)

func documents(t *testing.T, texts ...string) (found []workload.Document) {
	t.Helper()
	for _, o := range objects(t, texts...) {
		found = append(found, workload.Document{File: "policy.yaml", Object: o})
	}
	return found
}

// A manifest is reviewed as the cluster would: the object, and the Pods that come of
// it. Where the policy depends on what is not known, there is no decision.
func TestReview(t *testing.T) {
	deployment := func(image string) string {
		return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {template: {spec: {containers: [{name: c, image: %q}]}}}}`, image)
	}
	matching := func(match string) string {
		return strings.Replace(constraint("", ""), "match: {", "match: {"+match+", ", 1)
	}
	byLabel := matching("namespaceSelector: {matchLabels: {env: prod}}")
	namespace := func(name, env string) map[string]*corev1.Namespace {
		return map[string]*corev1.Namespace{name: {ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"env": env}}}}
	}
	for name, tc := range map[string]struct {
		constraint string
		namespaces map[string]*corev1.Namespace
		object     string
		denied     int
		matched    bool
		err        string
	}{
		"a signed image":                             {constraint("", ""), nil, deployment(signed), 0, true, ""},
		"an unsigned image":                          {constraint("", ""), nil, deployment(bad), 1, true, ""},
		"an image that a terminal would obey":        {constraint("", ""), nil, deployment("web\x1b[2J"), 1, true, ""},
		"containers that are no list":                {constraint("", ""), nil, `{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: {c: {image: x}}}}`, 2, true, ""},
		"an image that is no text":                   {constraint("", ""), nil, `{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: [x]}]}}`, 1, true, ""},
		"an object that makes no Pods":               {constraint("", ""), nil, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`, 0, false, ""},
		"a Pod without a namespace is in default":    {matching("namespaces: [default]"), nil, strings.Replace(pod("a", "", bad), "namespace: shop, ", "", 1), 1, true, ""},
		"a Pod of a namespace that is not meant":     {matching("namespaces: [default]"), nil, pod("a", "", bad), 0, false, ""},
		"a namespace of the label":                   {byLabel, namespace("shop", "prod"), pod("a", "", bad), 1, true, ""},
		"a namespace without the label":              {byLabel, namespace("shop", "test"), pod("a", "", bad), 0, false, ""},
		"a namespace whose labels are not known":     {byLabel, namespace("other", "prod"), pod("a", "", bad), 0, false, "those of namespace shop are not known"},
		"the same, of a Pod that a workload makes":   {byLabel, nil, deployment(bad), 0, false, "those of namespace shop are not known"},
		"labels decide nothing where the name does":  {matching("namespaces: [other], namespaceSelector: {matchLabels: {env: prod}}"), nil, pod("a", "", bad), 0, false, ""},
		"a question without an answer is a denial":   {constraint("", ""), nil, pod("a", "", broken), 1, true, ""},
		"a match that Gatekeeper cannot read":        {matching("namespaceSelector: [odd]"), nil, pod("a", "", bad), 0, false, "policy.yaml"},
		"a constraint with a field that is unknown":  {constraint("", "trust: everybody"), nil, pod("a", "", bad), 0, false, "policy.yaml"},
		"a constraint with a key that is no OCID":    {strings.Replace(constraint("", ""), key, "image-key", 1), nil, pod("a", "", bad), 0, false, "policy.yaml"},
		"a constraint that admits what it is not of": {matching("labelSelector: {matchLabels: {app: web}}"), nil, pod("a", "", bad), 0, false, ""},
	} {
		p := workload.Input{Constraints: documents(t, tc.constraint), Namespaces: tc.namespaces}
		engines, err := simulate.NewEngines(t.Context(), func(ctx context.Context, _ string, questions []string) (map[string]any, error) {
			answers, err := answer(ctx, questions)
			if err != nil {
				return nil, err
			}
			return simulate.FromAnswers(answers)(ctx, "", questions)
		}, p)
		var d gatekeeper.Decision
		if err == nil {
			d, err = engines.Review(t.Context(), 0, objects(t, tc.object)[0])
			engines.Close()
		}
		if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: got %v, want %q", name, err, tc.err)
		}
		if len(d.Denied) != tc.denied || (d.Constraints > 0) != tc.matched {
			t.Errorf("%s: %d denials by %d constraints, want %d: %v", name, len(d.Denied), d.Constraints, tc.denied, d.Denied)
		}
	}
}

// A break-glass that is not allowed is held against the Pod as a whole, and so against
// each of its images.
func TestBreakGlassThatIsDenied(t *testing.T) {
	const glass = `oracle.image-policy.k8s.io/break-glass: "true"`
	breakGlass := `{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEBreakGlass, metadata: {name: glass},
		spec: {match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}, parameters: {%s}}}`
	for name, tc := range map[string]struct {
		annotations, parameters string
		want                    string
	}{
		"allowed":               {glass, "", "break-glass"},
		"without a reason":      {glass, "requireReason: true", "denied"},
		"with a reason":         {glass + `, oke-sign.dev/break-glass-reason: "outage 7"`, "requireReason: true", "break-glass"},
		"after its end":         {glass + `, oke-sign.dev/break-glass-until: "2001-01-01T00:00:00Z"`, "", "denied"},
		"no break-glass at all": {"", "requireReason: true", "denied"},
	} {
		streams, _, _, _ := genericiooptions.NewTestIOStreams()
		var e enforcement.State
		e.Namespaces = map[string]*corev1.Namespace{"shop": {ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}
		e.Constraints = documents(t, constraint("", ""), fmt.Sprintf(breakGlass, tc.parameters))
		found, err := simulate.Pods(t.Context(), &cli.Terminal{Streams: streams}, answer, e, objects(t, pod("a", tc.annotations, bad)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, why := found.Groups[0].ResultOf(bad); got != tc.want {
			t.Errorf("%s: got %s, want %s: %v", name, got, tc.want, why)
		}
	}
}

// Without answers there is no simulation, and never an empty one.
func TestPodsThatCannotBeSimulated(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx        context.Context
		constraint string
		ask        simulate.Asker
		err        string
	}{
		"OCI cannot be asked": {t.Context(), constraint("", ""), func(context.Context, []string) ([]simulate.Answer, error) {
			return nil, errors.New("no sign-in")
		}, "no sign-in"},
		"a constraint that Gatekeeper would reject": {t.Context(), constraint("", "trust: everybody"), answer, "trust"},
		"a command that is stopped":                 {cancelled, constraint("", ""), answer, "context canceled"},
	} {
		streams, _, _, _ := genericiooptions.NewTestIOStreams()
		e := enforcement.State{}
		e.Constraints = documents(t, tc.constraint)
		found, err := simulate.Pods(tc.ctx, &cli.Terminal{Streams: streams}, tc.ask, e, objects(t, pod("a", "", bad)))
		if err == nil || !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %d groups, %v, want %q", name, len(found.Groups), err, tc.err)
		}
	}
}

// Thousands of Pods of a few kinds are a few reviews.
func TestPodsOfACrowd(t *testing.T) {
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	var e enforcement.State
	e.Constraints = documents(t, constraint("", ""))
	one := objects(t, pod("web", "", signed, bad))[0]
	pods := make([]*unstructured.Unstructured, 5000)
	for i := range pods {
		pods[i] = one.DeepCopy()
		pods[i].SetName(fmt.Sprint("web-", i))
		pods[i].SetLabels(map[string]string{"pod-index": fmt.Sprint(i)})
	}
	found, err := simulate.Pods(t.Context(), &cli.Terminal{Streams: streams}, answer, e, pods)
	if err != nil || len(found.Groups) != 1 || len(found.Groups[0].Pods) != len(pods) {
		t.Fatalf("%d groups, %v", len(found.Groups), err)
	}
	if got, _ := found.Groups[0].ResultOf(bad); got != simulate.DeniedImage {
		t.Errorf("got %s", got)
	}
}

// The same violation of a workload and of its Pod is told once, at the image's line.
func TestObjectResult(t *testing.T) {
	located, err := manifest.Locate([]byte("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: c\n    image: web:1\n"))
	if err != nil {
		t.Fatal(err)
	}
	violation := gatekeeper.Violation{Kind: "OKESignedImages", Constraint: "signed", Message: "containers/c: no-digest: web:1", Details: map[string]any{
		"reason": "no-digest", "place": "containers/c", "subject": "web:1",
	}}
	whole := gatekeeper.Violation{Kind: "OKEBreakGlass", Constraint: "glass", Message: "it has ended"}
	r := simulate.ObjectResult{Lines: located[0].Lines}
	r.Add("deny", []gatekeeper.Violation{violation, whole})
	r.Add("deny", []gatekeeper.Violation{violation})
	r.Add("warn", []gatekeeper.Violation{violation})
	want := []workload.Violation{
		{Kind: "OKESignedImages", Constraint: "signed", Action: "deny", Reason: "no-digest", Message: "containers/c: no-digest: web:1", Line: 8},
		{Kind: "OKEBreakGlass", Constraint: "glass", Action: "deny", Message: "it has ended", Line: 1},
		{Kind: "OKESignedImages", Constraint: "signed", Action: "warn", Reason: "no-digest", Message: "containers/c: no-digest: web:1", Line: 8},
	}
	if diff := cmp.Diff(want, r.Violations); diff != "" {
		t.Error(diff)
	}
}

// An unknown verdict or scan is never shown as a yes or as a scan without problems.
func TestColumns(t *testing.T) {
	failed := errors.New("503")
	scan := func(counts map[vulnreport.Severity]int) *vulnreport.Report {
		return &vulnreport.Report{Known: true, Counts: counts}
	}
	for name, tc := range map[string]struct {
		status          simulate.ImageStatus
		signed, scanned string
	}{
		"not asked":                 {simulate.ImageStatus{Registry: "oci-registry"}, "-", "-"},
		"not found out":             {simulate.ImageStatus{Registry: "oci-registry", Err: failed}, "unknown", "unknown"},
		"of another registry":       {simulate.ImageStatus{Registry: "other", Err: failed}, "-", "-"},
		"signed":                    {simulate.ImageStatus{Verdict: &verdict.Verdict{Reason: verdict.Signed}}, "yes", "-"},
		"unsigned":                  {simulate.ImageStatus{Verdict: &verdict.Verdict{Reason: verdict.Unsigned}}, "no", "-"},
		"an empty verdict":          {simulate.ImageStatus{Verdict: &verdict.Verdict{}}, "no", "-"},
		"signed, and scans unknown": {simulate.ImageStatus{Registry: "oci-registry", Verdict: &verdict.Verdict{Reason: verdict.Signed}, Err: failed}, "yes", "unknown"},
		"never scanned":             {simulate.ImageStatus{Scan: &vulnreport.Report{Reason: "not-scanned"}}, "-", "not-scanned"},
		"nothing found":             {simulate.ImageStatus{Scan: scan(map[vulnreport.Severity]int{vulnreport.Low: 0})}, "-", "nothing found"},
		"the worst first":           {simulate.ImageStatus{Scan: scan(map[vulnreport.Severity]int{vulnreport.Low: 2, vulnreport.Critical: 1})}, "-", "1 CRITICAL, 2 LOW"},
	} {
		if got := tc.status.Signed(); got != tc.signed {
			t.Errorf("%s: signed %s, want %s", name, got, tc.signed)
		}
		if got := tc.status.Scanned(); got != tc.scanned {
			t.Errorf("%s: scanned %s, want %s", name, got, tc.scanned)
		}
	}
}

func TestKeys(t *testing.T) {
	of := func(kind string, keys ...string) string {
		return fmt.Sprintf(`{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: %s, metadata: {name: a}, spec: {parameters: {keys: [%s]}}}`, kind, strings.Join(keys, ", "))
	}
	for name, tc := range map[string]struct {
		constraints []string
		want        []string
	}{
		"no constraint":               {nil, nil},
		"each once, sorted":           {[]string{of("OKESignedImages", "b", "a"), of("OKESignedImages", "b", "c")}, []string{"a", "b", "c"}},
		"of other kinds":              {[]string{of("OKEImageDigests", "a")}, nil},
		"of a policy without keys":    {[]string{of("OKESignedImages")}, nil},
		"keys that are no texts":      {[]string{of("OKESignedImages", "1", "a")}, nil},
		"keys beside what is no list": {[]string{of("OKESignedImages", "a"), strings.Replace(of("OKESignedImages", "x"), "[x]", "x", 1)}, []string{"a"}},
	} {
		e := enforcement.State{}
		e.Constraints = documents(t, tc.constraints...)
		if diff := cmp.Diff(tc.want, simulate.Keys(e)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// Every workload that can make Pods is looked at, without what makes Pods for others.
func TestEachTemplate(t *testing.T) {
	server := fakeapiserver.Start(t)
	kubeconfig, err := server.Kubeconfig(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	template := `template: {spec: {nodeName: n, containers: [{name: c, image: "web:1"}]}}`
	texts := []string{
		`{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: shop}, spec: {` + template + `}}`,
		`{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: b, namespace: shop}, spec: {` + template + `}}`,
		`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: c, namespace: prod}, spec: {` + template + `}}`,
		`{apiVersion: batch/v1, kind: CronJob, metadata: {name: d, namespace: shop}, spec: {jobTemplate: {spec: {` + template + `}}}}`,
		`{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: e, namespace: shop}, spec: {` + template + `}}`,
		`{apiVersion: apps/v1, kind: Deployment, metadata: {name: f, namespace: shop}, spec: {template: odd}}`,
	}
	if err := server.Add(objects(t, texts...)...); err != nil {
		t.Fatal(err)
	}
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	s := &connect.Session{Terminal: cli.Terminal{Streams: streams}, Kube: connect.NewKube(streams.ErrOut)}
	*s.Kube.KubeConfig = kubeconfig
	for namespace, want := range map[string][]string{
		"":     {"CronJob/d", "DaemonSet/c", "Deployment/a", "StatefulSet/b"},
		"shop": {"CronJob/d", "Deployment/a", "StatefulSet/b"},
		"gone": nil,
	} {
		var got []string
		err := simulate.EachTemplate(t.Context(), s, namespace, func(of, pod *unstructured.Unstructured) {
			images, err := manifest.Images(pod)
			if err != nil || len(images) != 1 {
				t.Errorf("%s: %v, %v", of.GetName(), images, err)
			}
			got = append(got, of.GetKind()+"/"+of.GetName())
		})
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v\n%s", namespace, err, diff)
		}
	}
}
