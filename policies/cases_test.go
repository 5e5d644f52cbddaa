package policies_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper/gatekeepertest"
	"github.com/oke-sign/oke-sign/policies"
)

// A modelCase is a random request with a random policy and a random provider.
type modelCase struct {
	number      int
	kind        string
	parameters  map[string]any
	valid       bool // an API server accepts the parameters and the object
	operation   string
	user        string
	groups      []string
	object, old any
	provider    string
	answers     modelAnswers
}

func (c modelCase) input() any {
	review := map[string]any{"operation": c.operation, "object": c.object, "kind": c.gvk()}
	if c.operation != "" {
		review["userInfo"] = map[string]any{"username": c.user, "groups": c.groups}
	}
	if c.operation == "UPDATE" {
		review["oldObject"] = c.old
	}
	return map[string]any{"review": review, "parameters": c.parameters}
}

func (c modelCase) gvk() map[string]any {
	version, _ := at(c.object, "apiVersion").(string)
	group, version, grouped := strings.Cut(version, "/")
	if !grouped {
		group, version = "", group
	}
	return map[string]any{"group": group, "version": version, "kind": at(c.object, "kind")}
}

func (c modelCase) request() gatekeeper.Request {
	r := gatekeeper.Request{
		Operation: admissionv1.Operation(c.operation),
		Object:    &unstructured.Unstructured{Object: c.object.(map[string]any)},
	}
	if c.operation != "" {
		r.User = authenticationv1.UserInfo{Username: c.user, Groups: c.groups}
	}
	if c.operation == "UPDATE" {
		r.OldObject = &unstructured.Unstructured{Object: c.old.(map[string]any)}
	}
	return r
}

func (c modelCase) String() string {
	text, _ := json.MarshalIndent(map[string]any{"kind": c.kind, "input": c.input(), "seed": c.answers.seed}, "", " ")
	return string(text)
}

func newCase(r *rand.Rand, number int) modelCase {
	c := modelCase{
		number: number, kind: modelKinds[r.IntN(len(modelKinds))], valid: true,
		operation: pick(r, "CREATE", "CREATE", "UPDATE", ""),
		user: pick(r, "alice", "bob", "system:serviceaccount:ops:deployer",
			"system:serviceaccount:kube-system:statefulset-controller", "system:serviceaccount:kube-system:replicaset-controller"),
		groups:   pick(r, []string{}, []string{"system:authenticated", "sre"}),
		provider: fmt.Sprintf("case-%d", number),
		answers:  modelAnswers{seed: r.Uint64(), mode: pick(r, "", "", "", "", "", "", "null", "empty", "error")},
	}
	c.parameters = c.newParameters(r)
	c.object = c.newObject(r)
	if c.operation == "UPDATE" {
		c.old = c.newObject(r)
		switch r.IntN(4) {
		case 0:
			c.old = changedImages(r, c.object)
		case 1:
			c.old = movedContainers(r, c.object)
		}
	}
	if c.operation != "UPDATE" {
		return c
	}
	if _, ok := c.old.(map[string]any); !ok {
		c.valid = false
	}
	return c
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// maybe sets a field to one of the values, or leaves it out. It sometimes sets the odd value,
// which a schema would reject.
func (c *modelCase) maybe(r *rand.Rand, fields map[string]any, name string, odd any, values ...any) {
	switch n := r.IntN(12); {
	case n == 0:
		fields[name], c.valid = odd, false
	case n < 8:
		fields[name] = pick(r, values...)
	}
}

func (c *modelCase) newParameters(r *rand.Rand) map[string]any {
	if c.kind == policies.BreakGlass {
		return c.newBreakGlassParameters(r)
	}
	p := map[string]any{"provider": c.provider}
	patterns := []any{}
	for range r.IntN(3) {
		patterns = append(patterns, pick[any](r, "quay.io/a/**", "quay.io/a/b", "iad.ocir.io/ns/repo1", "iad.ocir.io/ns/**", "iad.ocir.io/ns/repo2"+digest, "registry:5000/x", "iad.ocir.io/ns/**"+digest))
	}
	if r.IntN(20) == 0 {
		patterns, c.valid = append(patterns, pick[any](r, "**", "quay.io/**", "nginx", "library/**", "quay.io/*/b", "")), false
	}
	if len(patterns) > 0 && r.IntN(2) == 0 {
		p["exemptImages"] = patterns
	}
	if r.IntN(4) == 0 {
		p["exemptions"] = c.newExemptions(r)
	}
	c.maybe(r, p, "breakGlass", "honor", "Honor", "Ignore")
	switch c.kind {
	case policies.ImageDigests:
		delete(p, "provider")
		c.maybe(r, p, "registries", "ocir", "All", "OCIRegistry")
		return p
	case policies.SignedImages:
		a, b := any(keyA), any(keyB)
		p["keys"] = pick[any](r, []any{a}, []any{a}, []any{b, a}, []any{a, b, a}, []any{})
		if r.IntN(12) == 0 {
			c.valid = false
			switch odd := pick[any](r, nil, "missing", keyA, []any{1}, []any{a, nil}, map[string]any{}); odd {
			case "missing":
				delete(p, "keys")
			default:
				p["keys"] = odd
			}
		}
		c.maybe(r, p, "report", "true", true, false)
		if r.IntN(3) == 0 {
			p["revoked"] = c.newRevoked(r)
		}
	case policies.ScannedImages:
		c.maybe(r, p, "maxSeverity", "high", "LOW", "MEDIUM", "HIGH", "CRITICAL")
		c.maybe(r, p, "maxAge", "a while", "1h", "24h", "99999h")
		c.maybe(r, p, "unknown", "allow", "Allow", "Deny")
		c.maybe(r, p, "ignore", "CVE-1", []any{"CVE-1"}, []any{"CVE-1", "CVE-2"}, []any{"CVE-1", "CVE-2", "CVE-3"})
	}
	c.maybe(r, p, "otherRegistries", "allow", "Allow", "Deny")
	return p
}

// newExemptions returns exemptions that end, some of which have ended.
func (c *modelCase) newExemptions(r *rand.Rand) []any {
	in := func(d time.Duration) any { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	list := []any{}
	for range 1 + r.IntN(2) {
		e := map[string]any{"reason": "INC-7", "until": pick(r, in(time.Hour), in(time.Hour), in(-time.Hour), "9999-12-31T23:59:59Z"),
			"images": []any{pick[any](r, "quay.io/a/**", "iad.ocir.io/ns/repo1", "iad.ocir.io/ns/**", "iad.ocir.io/ns/repo2"+digest)}}
		c.valid = c.valid && e["until"] != "9999-12-31T23:59:59Z"
		if r.IntN(12) == 0 {
			c.valid = false
			e[pick(r, "until", "images")] = pick[any](r, nil, "tomorrow", 7, []any{})
		}
		list = append(list, e)
	}
	return list
}

// newRevoked returns revocations, by digest or by image.
func (c *modelCase) newRevoked(r *rand.Rand) []any {
	list := []any{}
	for range 1 + r.IntN(3) {
		e := map[string]any{"reason": "CVE-2026-0001"}
		if r.IntN(2) == 0 {
			e["digest"] = strings.TrimPrefix(pick(r, digest, zeroDigest), "@")
		} else {
			e["image"] = pick(r, "iad.ocir.io/ns/repo1", "ocir.us-ashburn-1.oci.oraclecloud.com/ns/repo1", "phx.ocir.io/ns/repo2", "quay.io/a/b") + pick(r, digest, zeroDigest)
		}
		if r.IntN(12) == 0 {
			c.valid = false
			e = pick(r, map[string]any{"digest": "sha256:1"}, map[string]any{"image": "iad.ocir.io/ns/repo1"}, map[string]any{"digest": 7, "image": nil})
		}
		list = append(list, e)
	}
	return list
}

func (c *modelCase) newBreakGlassParameters(r *rand.Rand) map[string]any {
	p := map[string]any{}
	for _, who := range [][2]string{{"users", "alice"}, {"groups", "sre"}, {"serviceAccounts", "ops/deployer"}} {
		if r.IntN(3) == 0 {
			p[who[0]] = []any{who[1]}
		}
	}
	c.maybe(r, p, "requireReason", "true", true, false, false)
	c.maybe(r, p, "requireDigest", "true", true, false, false)
	c.maybe(r, p, "report", "true", true, false, false, false)
	if r.IntN(2) == 0 {
		c.maybe(r, p, "maxDuration", "2 hours", "1h", "90m")
	}
	return p
}

func (c *modelCase) newObject(r *rand.Rand) any {
	pod := map[string]any{"spec": newSpec(r)}
	if annotations := pick[any](r, nil, nil, map[string]any{"a": "b"}, breakGlassAs("true"), breakGlassAs("true"), breakGlassAs("false"), breakGlassAs("True"), newBreakGlass(r), newBreakGlass(r)); annotations != nil {
		pod["metadata"] = map[string]any{"annotations": annotations}
	}
	elsewhere := map[string]any{"annotations": breakGlassAs("true"), "name": "x", "namespace": "default"}
	object := map[string]any{"apiVersion": "v1", "kind": "Thing", "metadata": elsewhere}
	switch r.IntN(20) {
	case 7:
		return c.newRevision(r, pod)
	case 8:
		if r.IntN(20) == 0 { // These objects are slow, and their decision varies little.
			return crowdedObject(r, object)
		}
		object["spec"] = newSpec(r)
	case 0:
		object["spec"] = map[string]any{"template": pod}
	case 1:
		object["template"] = pod
	case 2:
		object["spec"] = map[string]any{"jobTemplate": map[string]any{"metadata": elsewhere, "spec": map[string]any{"template": pod}}}
	case 3:
		job := func(pod any) map[string]any {
			job := map[string]any{"template": map[string]any{"spec": map[string]any{"template": pod}}}
			if r.IntN(3) > 0 {
				job["name"] = pick(r, "driver", "workers")
			}
			return job
		}
		object["spec"] = map[string]any{"replicatedJobs": []any{job(pod), job(map[string]any{"spec": newSpec(r)})}}
	case 4:
		object["spec"] = newSpec(r)
		object["spec"].(map[string]any)["template"] = pod
	case 5:
		object["spec"] = pick[any](r, nil, "x", map[string]any{}, []any{pod})
	case 6:
		c.valid = false
		return pick[any](r, nil, "pod", []any{pod}, 7)
	default:
		maps.Copy(object, pod)
		metadata, _ := pod["metadata"].(map[string]any)
		object["metadata"] = metadata
		if metadata == nil {
			delete(object, "metadata")
		}
	}
	if c.kind == policies.BreakGlass {
		of := strings.Fields(pick(r, "v1 Pod", "v1 Pod", "v1 Pod", "apps/v1 ReplicaSet", "apps/v1 Pod"))
		object["apiVersion"], object["kind"] = of[0], of[1]
	}
	return object
}

// newRevision returns a ControllerRevision, mostly as a controller writes it.
func (c *modelCase) newRevision(r *rand.Rand, pod map[string]any) any {
	template := maps.Clone(pod)
	if r.IntN(4) > 0 {
		template["$patch"] = pick(r, "replace", "replace", "replace", "merge")
	}
	spec := map[string]any{"template": template}
	data := map[string]any{"spec": spec}
	for _, fields := range []map[string]any{data, spec, template, at(template, "spec").(map[string]any)} {
		if r.IntN(12) == 0 {
			fields[pick(r, "Spec", "TEMPLATE", "\u017fpec", "metaData", "Containers", "volume\u017f", "other")] = map[string]any{}
		}
	}
	switch r.IntN(8) {
	case 0:
		delete(template, "spec")
	case 1:
		delete(data, pick(r, "spec", "nothing"))
	case 2:
		spec["template"] = pick[any](r, nil, "x", []any{})
	}
	return map[string]any{
		"apiVersion": pick(r, "apps/v1", "apps/v1", "apps/v1", "v1"), "kind": "ControllerRevision",
		"metadata": map[string]any{"name": "x", "namespace": "default"}, "data": data,
	}
}

// crowdedObject returns an object with about as many images as the policies accept.
func crowdedObject(r *rand.Rand, object map[string]any) any {
	list := []any{}
	for i := range 249 + r.IntN(4) {
		list = append(list, newHolder(r, i, "image"))
	}
	object["spec"] = map[string]any{"containers": list}
	return object
}

// movedContainers returns a copy of object with some containers in other fields or with other
// names.
func movedContainers(r *rand.Rand, object any) any {
	text, _ := json.Marshal(object)
	from, to := "initContainers", "ephemeralContainers"
	switch r.IntN(3) {
	case 0:
		from, to = `"c0"`, `"c9"`
	case 1:
		from, to = "driver", "workers"
	}
	var copied any
	if json.Unmarshal([]byte(strings.ReplaceAll(string(text), from, to)), &copied) != nil {
		return nil
	}
	return copied
}

// newBreakGlass returns break-glass annotations with a reason and an end, valid or not.
func newBreakGlass(r *rand.Rand) map[string]any {
	annotations := breakGlassAs("true")
	if reason := pick[any](r, "missing", "INC-7", "INC-7", " ", 7); reason != "missing" {
		annotations[reasonAnnotation] = reason
	}
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	end := pick[any](r, "missing", in(30*time.Minute), in(30*time.Minute), in(-time.Hour), in(3*time.Hour), "tomorrow", 7, "9999-12-31T23:59:59Z")
	if end != "missing" {
		annotations[untilAnnotation] = end
	}
	return annotations
}

func breakGlassAs(value any) map[string]any {
	return map[string]any{"oracle.image-policy.k8s.io/break-glass": value}
}

func newSpec(r *rand.Rand) map[string]any {
	spec := map[string]any{}
	for _, field := range []string{"containers", "containers", "initContainers", "ephemeralContainers"} {
		if r.IntN(2) == 0 {
			continue
		}
		list := []any{}
		for i := range 1 + r.IntN(3) {
			list = append(list, newHolder(r, i, "image"))
		}
		spec[field] = list
		if r.IntN(40) == 0 {
			spec[field] = pick[any](r, nil, false, "nginx", 7, map[string]any{"a": newHolder(r, 0, "image")}, []any{}, []any{"nginx"}, []any{nil}, []any{[]any{}})
		}
	}
	if r.IntN(4) == 0 {
		volume := map[string]any{"name": "v", "image": newHolder(r, 0, "reference")}
		spec["volumes"] = []any{volume, map[string]any{"name": "tmp", "emptyDir": map[string]any{}}}
		switch r.IntN(12) {
		case 0:
			volume["image"] = pick[any](r, nil, "nginx", map[string]any{}, false)
		case 1:
			spec["volumes"] = pick[any](r, nil, "v", map[string]any{"a": volume})
		}
	}
	return spec
}

// newHolder returns a container, or the image source of a volume.
func newHolder(r *rand.Rand, i int, field string) map[string]any {
	holder := map[string]any{}
	if r.IntN(10) > 0 {
		holder["name"] = fmt.Sprintf("c%d", i)
	}
	if ref := newRef(r); ref != "missing" {
		holder[field] = ref
	}
	return holder
}

var zeroDigest = "@sha256:" + strings.Repeat("0", 64)

func newRef(r *rand.Rand) any {
	host := pick(r, "iad.ocir.io", "iad.ocir.io", "iad.ocir.io", "us-ashburn-1.ocir.io", "ocir.us-ashburn-1.oci.oraclecloud.com", "quay.io", "registry:5000")
	path := pick(r, "/ns/repo1", "/ns/repo2", "/ns/repo3", "/ns/a/b", "/a/b", "/x")
	suffix := pick(r, digest, digest, digest, ":v1"+digest, ":v1", "", zeroDigest)
	ref := host + path + suffix
	switch r.IntN(20) {
	case 0:
		return pick[any](r, nil, "", "missing", 7, true, false, []any{ref}, map[string]any{"ref": ref})
	case 1:
		return pick(r, "nginx", "nginx"+digest, "library/nginx:1", "a/b")
	case 2:
		i := r.IntN(len(ref))
		return ref[:i] + pick(r, "A", ":", "/", "@", ".", "-", " ", "é", "*", "") + ref[i+1:]
	case 3:
		return pick(r, strings.ToUpper(host)+path+suffix, host+":443"+path+suffix, host+"."+path+suffix, "x@"+ref, ref+digest, "a."+ref, "xyz.ocir.io"+path+suffix, "sha256:cafe", "cafe")
	}
	return ref
}

// changedImages returns a copy of object with some other images.
func changedImages(r *rand.Rand, object any) any {
	text, _ := json.Marshal(object)
	var copied any
	if json.Unmarshal([]byte(strings.ReplaceAll(string(text), pick(r, "repo1", "repo2", ":v1", "nothing"), "other")), &copied) != nil {
		return nil
	}
	return copied
}

// modelAnswers are the answers of a provider. The hash of a question chooses its answer.
type modelAnswers struct {
	seed uint64
	mode string
}

// items returns the answers to a question: values and errors.
func (m modelAnswers) items(question string) (values []any, errs []string) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(question))
	r := rand.New(rand.NewPCG(m.seed, h.Sum64()))
	yes, no := m.value(r, true), m.value(r, false)
	switch r.IntN(16) {
	case 0:
		return nil, nil
	case 1:
		return nil, []string{"no"}
	case 2:
		return []any{yes}, []string{"no"}
	case 3:
		return []any{yes, no}, nil
	case 4:
		return []any{pick[any](r, nil, true, "signed", []any{yes}, 1, map[string]any{})}, nil
	case 5, 6, 7, 8:
		return []any{no}, nil
	}
	return []any{yes}, nil
}

// value returns an answer that both a verdict and a scan can be read from.
func (m modelAnswers) value(r *rand.Rand, good bool) map[string]any {
	v := map[string]any{"signed": good, "reason": pick[any](r, "signed", "not-known")}
	if !good {
		v["reason"] = pick[any](r, "unsigned", "key-not-allowed", "unsigned", "signed", "x: y", 7)
		if r.IntN(8) == 0 {
			v["signed"] = pick[any](r, "true", "false", 1, nil)
		}
	}
	v["known"] = good || r.IntN(2) == 0
	if r.IntN(20) == 0 {
		v["known"] = pick[any](r, "true", nil, 1, false)
	}
	v["scannedAt"] = time.Now().Add(-pick(r, 30*time.Minute, 2*time.Hour, 60*24*time.Hour)).UTC().Format(time.RFC3339)
	if r.IntN(20) == 0 {
		v["scannedAt"] = pick[any](r, nil, "today", 7)
	}
	problems, counts := []any{}, map[string]any{"CRITICAL": 0, "HIGH": 0, "MEDIUM": 0, "LOW": 0}
	n := 0
	if !good || r.IntN(4) == 0 {
		n = 1 + r.IntN(3)
	}
	for i := range n {
		severity := pick(r, "CRITICAL", "HIGH", "MEDIUM", "LOW", "LOW", "NONE", "SEVERE")
		problems = append(problems, map[string]any{"id": fmt.Sprintf("CVE-%d", i+1), "severity": severity})
		if had, ok := counts[severity].(int); ok {
			counts[severity] = had + 1
		}
	}
	v["problems"], v["counts"] = problems, counts
	switch r.IntN(24) {
	case 0:
		counts[pick(r, "CRITICAL", "HIGH", "MEDIUM", "LOW")] = pick[any](r, 5, "0", nil)
	case 1:
		v["counts"] = pick[any](r, nil, map[string]any{}, []any{})
	case 2:
		v["problems"] = pick[any](r, nil, "none", map[string]any{})
	case 3:
		delete(v, "problems")
	}
	return v
}

// valid returns the values that count: those of an answer without two values for one
// question, and without an error for the same question.
func (m modelAnswers) valid(questions []string) map[string]any {
	valid := map[string]any{}
	if m.mode != "" {
		return valid
	}
	for _, q := range questions {
		values, errs := m.items(q)
		if len(values) > 1 {
			return nil
		}
		if len(values) == 1 && len(errs) == 0 {
			valid[q] = values[0]
		}
	}
	return valid
}

// toRego returns the answer as the Rego sees it.
func (m modelAnswers) toRego(questions []string) map[string]any {
	answer := map[string]any{"responses": []any{}, "errors": []any{}, "status_code": 200, "system_error": ""}
	switch m.mode {
	case "null":
		return map[string]any{"responses": nil, "errors": nil, "status_code": 500, "system_error": "connection refused"}
	case "empty":
		return answer
	case "error":
		answer["system_error"] = "OCI is down"
		return answer
	}
	for _, q := range questions {
		values, errs := m.items(q)
		for _, v := range values {
			answer["responses"] = append(answer["responses"].([]any), []any{q, v})
		}
		for _, e := range errs {
			answer["errors"] = append(answer["errors"].([]any), []any{q, e})
		}
	}
	return answer
}

// toWire returns the status and body that Gatekeeper's client gets.
func (m modelAnswers) toWire(questions []string) (int, string) {
	switch m.mode {
	case "null":
		return http.StatusBadGateway, "<html>"
	case "empty":
		return http.StatusServiceUnavailable, "{}"
	case "error":
		return http.StatusOK, gatekeepertest.Response("OCI is down")
	}
	items := []gatekeepertest.Item{}
	for _, q := range questions {
		values, errs := m.items(q)
		for _, v := range values {
			items = append(items, gatekeepertest.Item{"key": q, "value": v})
		}
		for _, e := range errs {
			items = append(items, gatekeepertest.Item{"key": q, "error": e})
		}
	}
	return http.StatusOK, gatekeepertest.Response("", items...)
}
