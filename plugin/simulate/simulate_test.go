package simulate_test

import (
	"context"
	"encoding/json"
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
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

const (
	key    = "ocid1.key.oc1.phx.bbqehaq3aadfa.abyhqljrabyhqljrabyhqljrabyhqljrabyhqljrabyhqljrabyhqljrabyh"
	signed = "phx.ocir.io/ns/web@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	bad    = "phx.ocir.io/ns/web@sha256:2222222222222222222222222222222222222222222222222222222222222222"
	broken = "phx.ocir.io/ns/web@sha256:3333333333333333333333333333333333333333333333333333333333333333"
)

// answer plays OCI: one image is signed, one is not, and about one OCI says nothing.
func answer(_ context.Context, questions []string) ([]simulate.Answer, error) {
	answers := make([]simulate.Answer, len(questions))
	for i, q := range questions {
		if err := json.Unmarshal([]byte(q), &answers[i].Question); err != nil {
			return nil, err
		}
		switch answers[i].Question.Image {
		case signed:
			answers[i].Value = verdict.Verdict{Reason: verdict.Signed, Key: key}
		case bad:
			answers[i].Value = verdict.Verdict{Reason: verdict.Unsigned, Detail: "no signature"}
		default:
			answers[i].Err = errors.New("OCI Registry answered 503")
		}
	}
	return answers, nil
}

func objects(t *testing.T, texts ...string) (found []*unstructured.Unstructured) {
	t.Helper()
	for _, text := range texts {
		o, err := manifest.Object([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		found = append(found, o)
	}
	return found
}

// constraint is OKESignedImages, with more of its spec and of its parameters.
func constraint(spec, parameters string) string {
	return fmt.Sprintf(`{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: signed},
		spec: {%s match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}, parameters: {keys: [%s], %s}}}`, spec, key, parameters)
}

func pod(name, annotations string, images ...string) string {
	var containers []string
	for i, image := range images {
		containers = append(containers, fmt.Sprintf("{name: c%d, image: %q}", i, image))
	}
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: shop, annotations: {%s}}, spec: {containers: [%s]}}`,
		name, annotations, strings.Join(containers, ", "))
}

// The result for an image is Gatekeeper's decision, and never better than the known
// verdict.
func TestPods(t *testing.T) {
	const glass = `oracle.image-policy.k8s.io/break-glass: "true"`
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	for name, tc := range map[string]struct {
		constraints []string
		excluded    []string
		pod         string
		image       string
		want        string
		reason      string // of the first violation
	}{
		"signed":                      {constraints: []string{constraint("", "")}, pod: pod("a", "", signed), image: signed, want: "allowed"},
		"unsigned":                    {constraints: []string{constraint("", "")}, pod: pod("a", "", bad), image: bad, want: "denied", reason: "unsigned"},
		"the signed one of two":       {constraints: []string{constraint("", "")}, pod: pod("a", "", signed, bad), image: signed, want: "allowed"},
		"no answer":                   {constraints: []string{constraint("", "")}, pod: pod("a", "", broken), image: broken, want: "unknown", reason: "no-answer"},
		"a tag":                       {constraints: []string{constraint("", "")}, pod: pod("a", "", "phx.ocir.io/ns/web:1"), image: "phx.ocir.io/ns/web:1", want: "denied", reason: "no-digest"},
		"warned":                      {constraints: []string{constraint("enforcementAction: warn,", "")}, pod: pod("a", "", bad), image: bad, want: "warned", reason: "unsigned"},
		"reported alone":              {constraints: []string{constraint("enforcementAction: dryrun,", "")}, pod: pod("a", "", bad), image: bad, want: "warned", reason: "unsigned"},
		"exempt":                      {constraints: []string{constraint("", "exemptImages: [phx.ocir.io/ns/**]")}, pod: pod("a", "", bad), image: bad, want: "exempt", reason: "unsigned"},
		"exempt, and signed besides":  {constraints: []string{constraint("", "exemptImages: [phx.ocir.io/ns/**]")}, pod: pod("a", "", signed), image: signed, want: "allowed"},
		"break-glass":                 {constraints: []string{constraint("", "")}, pod: pod("a", glass, bad), image: bad, want: "break-glass", reason: "unsigned"},
		"break-glass that is ignored": {constraints: []string{constraint("", "breakGlass: Ignore")}, pod: pod("a", glass, bad), image: bad, want: "denied", reason: "unsigned"},
		"break-glass without need":    {constraints: []string{constraint("", "")}, pod: pod("a", glass, signed), image: signed, want: "allowed"},
		"a constraint on others": {
			constraints: []string{strings.Replace(constraint("", ""), "match: {", "match: {namespaces: [other], ", 1)},
			pod:         pod("a", "", bad), image: bad, want: "unmatched",
		},
		"a namespace that Gatekeeper excludes": {constraints: []string{constraint("", "")}, excluded: []string{"sh*"}, pod: pod("a", "", bad), image: bad, want: "not-asked"},
	} {
		streams, _, _, _ := genericiooptions.NewTestIOStreams()
		var e enforcement.State
		e.Namespaces = map[string]*corev1.Namespace{"shop": shop}
		e.Excluded = tc.excluded
		for _, c := range objects(t, tc.constraints...) {
			e.Constraints = append(e.Constraints, workload.Document{File: "the cluster", Object: c})
		}
		pods := objects(t, tc.pod)
		found, err := simulate.Pods(t.Context(), &cli.Terminal{Streams: streams}, answer, e, pods)
		if err != nil || len(found.Groups) != 1 {
			t.Errorf("%s: %d groups, %v", name, len(found.Groups), err)
			continue
		}
		got, why := found.Groups[0].ResultOf(tc.image)
		reason := ""
		if len(why) > 0 {
			reason = why[0].Reason
		}
		if got != tc.want || reason != tc.reason {
			t.Errorf("%s: got %s (%s), want %s (%s): %v", name, got, reason, tc.want, tc.reason, why)
		}
		if !slices.Contains(simulate.ImageResults, got) {
			t.Errorf("%s: %s has no place in the order of results", name, got)
		}
	}
}

// OCI is asked once for what many Pods ask, and not about what cannot be signed.
func TestQuestionsAreAskedOnce(t *testing.T) {
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	var e enforcement.State
	e.Namespaces = map[string]*corev1.Namespace{"shop": {ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}
	for _, c := range objects(t, constraint("", ""), strings.Replace(constraint("", ""), "name: signed", "name: again", 1)) {
		e.Constraints = append(e.Constraints, workload.Document{File: "the cluster", Object: c})
	}
	var texts []string
	for i := range 20 {
		texts = append(texts, pod(fmt.Sprint("web-", i), "", signed), pod(fmt.Sprint("db-", i), "", bad, "nginx:1"))
	}
	var asked []string
	_, err := simulate.Pods(t.Context(), &cli.Terminal{Streams: streams}, func(ctx context.Context, questions []string) ([]simulate.Answer, error) {
		asked = append(asked, questions...)
		return answer(ctx, questions)
	}, e, objects(t, texts...))
	want := []string{fmt.Sprintf(`{"image":%q,"keys":[%q]}`, signed, key), fmt.Sprintf(`{"image":%q,"keys":[%q]}`, bad, key)}
	if diff := cmp.Diff(want, asked); err != nil || diff != "" {
		t.Errorf("%v:\n%s", err, diff)
	}
}

// The images of a cluster, the worst first.
func TestImageStatuses(t *testing.T) {
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	var e enforcement.State
	e.Namespaces = map[string]*corev1.Namespace{"shop": {ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}
	for _, c := range objects(t, constraint("", "")) {
		e.Constraints = append(e.Constraints, workload.Document{File: "the cluster", Object: c})
	}
	const tagged = "phx.ocir.io/ns/web:1"
	running := objects(t,
		pod("a", "", signed), pod("b", "", signed), pod("c", "", bad), pod("d", "", broken),
		fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: e, namespace: shop}, spec: {containers: [{name: c, image: %q}]},
			status: {containerStatuses: [{name: c, image: %q, imageID: "cri-o://%s"}, {name: x, imageID: %q}]}}`, tagged, tagged, signed, bad),
	)
	var pods []workload.Document
	var owners []workload.ObjectName
	for _, p := range running {
		pods = append(pods, workload.Document{Object: p})
		owners = append(owners, workload.NameOf(p))
	}
	found, err := simulate.Pods(t.Context(), &cli.Terminal{Streams: streams}, answer, e, running, signed)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Image, Running, Result, Signed string
		Pods                           int
		Pinned, Failed                 bool
	}
	var got []row
	for _, s := range simulate.ImageStatuses(found, pods, owners) {
		got = append(got, row{s.Image, s.Running, s.Result, s.Signed(), s.Pods, s.Pinned, s.Err != nil})
		if len(s.Workloads) != s.Pods {
			t.Errorf("%s: %d workloads of %d Pods", s.Image, len(s.Workloads), s.Pods)
		}
	}
	want := []row{
		{broken, "", "unknown", "unknown", 1, true, true},
		{tagged, signed, "denied", "yes", 1, false, false}, // what runs for the tag is signed, and a tag may move
		{bad, "", "denied", "no", 1, true, false},
		{signed, "", "allowed", "yes", 2, true, false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A node's word on what it runs counts for the repository that the Pod names.
func TestRunningDigests(t *testing.T) {
	digest := strings.TrimPrefix(signed, "phx.ocir.io/ns/web")
	status := func(id string) string {
		return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: "phx.ocir.io/ns/web:1"}]},
			status: {containerStatuses: [{name: c, imageID: %q}]}}`, id)
	}
	for name, tc := range map[string]struct{ pod, want string }{
		"as containerd says it":           {status("phx.ocir.io/ns/web" + digest), signed},
		"with a scheme":                   {status("docker-pullable://phx.ocir.io/ns/web" + digest), signed},
		"another repository":              {status("phx.ocir.io/ns/other" + digest), ""},
		"no digest":                       {status("phx.ocir.io/ns/web:1"), ""},
		"an id of the node's own":         {status("sha256:" + strings.Repeat("1", 64)), ""},
		"nothing yet":                     {status(""), ""},
		"a Pod that names a digest":       {pod("a", "", signed), ""},
		"the status of another container": {strings.Replace(status("phx.ocir.io/ns/web"+digest), "[{name: c, imageID", "[{name: other, imageID", 1), ""},
	} {
		if got := simulate.RunningDigests(objects(t, tc.pod)[0])["phx.ocir.io/ns/web:1"]; got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

// A record that was made up is rejected, whole.
func TestReadRecord(t *testing.T) {
	record := func(list string) string {
		text, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		return `{apiVersion: v1, kind: ConfigMap, metadata: {name: oke-sign-verdicts}, data: {verdicts.json: ` + string(text) + `}}`
	}
	entry := fmt.Sprintf(`{"question":{"image":%q,"keys":[%q]},"verdict":{"signed":true}}`, signed, key)
	for name, tc := range map[string]struct{ text, err string }{
		"none":                    {record(`[]`), ""},
		"one":                     {record(`[` + entry + `]`), ""},
		"two on one question":     {record(`[` + entry + `,` + entry + `]`), "two verdicts"},
		"a field that is unknown": {record(`[{"question":{"image":"x"},"verdict":{},"trust":"me"}]`), "unknown field"},
		"more than a list":        {record(`[] []`), "more than one list"},
		"no list":                 {record(`{}`), "cannot unmarshal"},
		"another name":            {strings.Replace(record(`[]`), "oke-sign-verdicts", "verdicts", 1), "is no ConfigMap"},
		"another kind":            {strings.Replace(record(`[]`), "ConfigMap", "Secret", 1), "is no ConfigMap"},
		"no data":                 {`{apiVersion: v1, kind: ConfigMap, metadata: {name: oke-sign-verdicts}}`, "is no ConfigMap"},
		"no object":               {`[`, "-: "},
	} {
		got, err := simulate.ReadRecord(strings.NewReader(tc.text), "-")
		switch {
		case tc.err == "" && (err != nil || len(got) != strings.Count(tc.text, "question")):
			t.Errorf("%s: %v, %v", name, got, err)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err) || got != nil):
			t.Errorf("%s: %v, %v, want an error with %q", name, got, err, tc.err)
		}
	}
}

// An unanswered question is an error, whatever the answers to others are.
func TestFromAnswers(t *testing.T) {
	q := func(image string) string { return fmt.Sprintf(`{"image":%q,"keys":[%q]}`, image, key) }
	questions := []string{q(signed), q(broken)}
	answers, err := answer(t.Context(), questions)
	if err != nil {
		t.Fatal(err)
	}
	ask := simulate.FromAnswers(answers)
	for name, tc := range map[string]struct {
		questions []string
		known     int
		failed    bool
	}{
		"answered":    {questions[:1], 1, false},
		"unanswered":  {questions[1:], 1, true},
		"both":        {questions, 1, true},
		"never asked": {[]string{q(bad)}, 1, false}, // it has no answer, which the policy denies
		"none":        {nil, 1, false},
	} {
		values, err := ask(t.Context(), "oke-sign", tc.questions)
		if len(values) != tc.known || (err != nil) != tc.failed {
			t.Errorf("%s: %v, %v", name, values, err)
		}
		if values[q(bad)] != nil || values[q(broken)] != nil {
			t.Errorf("%s: an answer that nobody gave", name)
		}
	}
}
