package policies_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/image"
)

// This file is the specification of the image policies. It is a second implementation,
// independent of the Rego, that reads the same JSON.

// want returns the place and the reason of every violation.
func (c modelCase) want() []string {
	found, checked := c.objectViolations()
	if c.kind == policies.BreakGlass {
		c.checkBreakGlass(found, len(checked) == 0 && found["object: too-many-images"])
	} else {
		c.checkImages(found, checked)
	}
	want := slices.Collect(maps.Keys(found))
	slices.Sort(want)
	if want == nil {
		want = []string{}
	}
	return want
}

// objectViolations returns the violations that every policy has, and the images that the
// policy must check.
func (c modelCase) objectViolations() (found map[string]bool, checked []podImage) {
	found = map[string]bool{}
	checked = imagesOf(c.object)
	unreadable := unreadableParts(c.object)
	if c.operation == "UPDATE" {
		old := imagesOf(c.old)
		checked = slices.DeleteFunc(checked, func(i podImage) bool {
			return slices.ContainsFunc(old, func(o podImage) bool { return i.unchanged(o) })
		})
		if _, ok := c.old.(map[string]any); ok {
			for key := range unreadableParts(c.old) {
				delete(unreadable, key)
			}
		}
	}
	if len(checked) > 250 {
		checked, unreadable["too many"] = nil, "object: too-many-images"
	}
	for _, violation := range unreadable {
		found[violation] = true
	}
	return found, checked
}

// checkImages adds the violations of a policy on images.
func (c modelCase) checkImages(found map[string]bool, checked []podImage) {
	questions := map[string]string{} // by image
	for _, i := range checked {
		if q := c.question(i); q != "" {
			questions[i.ref.(string)] = q
		}
	}
	values := c.answers.valid(slices.Sorted(maps.Values(questions)))
	for _, i := range checked {
		q := questions[fmt.Sprint(i.ref)]
		value, _ := values[q].(map[string]any)
		if reason := c.reason(i, q != "", value); reason != "" {
			found[i.place+": "+reason] = true
		}
		if c.parameterIs("report", true) && c.keysAre(0) && classOf(i.ref) == "oci-registry" && !c.revoked(i) && !c.exempt(i) && !c.underBreakGlass(i) {
			found[i.place+": no-key-listed"] = true
		}
	}
}

// reason returns the reason to deny an image, or "" if it is admitted.
func (c modelCase) reason(i podImage, asked bool, value map[string]any) string {
	switch class := classOf(i.ref); {
	case i.ref == nil || i.ref == "":
		return "no-image"
	case class == "ambiguous":
		return "ambiguous"
	case c.revoked(i):
		return "revoked"
	case c.exempt(i):
		return ""
	case c.kind == policies.ImageDigests:
		if pinned(i.ref) || c.underBreakGlass(i) || class == "other" && c.parameterIs("registries", "OCIRegistry") {
			return ""
		}
		return "no-digest"
	case class == "other":
		if c.parameterIs("otherRegistries", "Allow") {
			return ""
		}
		return "not-oci-registry"
	case c.underBreakGlass(i):
		return ""
	case c.kind == policies.SignedImages && c.keysAre(0):
		return ""
	case c.kind == policies.SignedImages && c.keys() == nil:
		return "no-keys"
	case !pinned(i.ref):
		return "no-digest"
	case !asked || value == nil:
		return "no-answer"
	case c.kind == policies.SignedImages:
		return signedReason(value)
	default:
		return c.scanReason(value)
	}
}

func signedReason(value map[string]any) string {
	reason, _ := value["reason"].(string)
	switch {
	case value["signed"] == true:
		return ""
	case value["signed"] == false && validReason.MatchString(reason) && reason != "signed":
		return reason
	}
	return "no-answer"
}

var validReason = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

func (c modelCase) scanReason(value map[string]any) string {
	allow := c.parameterIs("unknown", "Allow")
	if reason, ok := value["reason"].(string); ok && value["known"] == false && validReason.MatchString(reason) {
		if allow {
			return ""
		}
		return reason
	}
	text, _ := value["scannedAt"].(string)
	at, err := time.Parse(time.RFC3339, text)
	problems, isList := value["problems"].([]any)
	counts, _ := value["counts"].(map[string]any)
	if value["known"] != true || err != nil || !isList {
		return "no-answer"
	}
	order := []string{"CRITICAL", "HIGH", "MEDIUM", "LOW", "NONE"}
	least, given := c.parameters["maxSeverity"]
	if !given {
		least = "HIGH"
	}
	forbidden := order
	if n := slices.Index(order[:4], fmt.Sprint(least)); n >= 0 {
		forbidden = order[:n+1]
	}
	ignored, _ := c.parameters["ignore"].([]any)
	harmless := true
	listed := map[string]map[string]bool{}
	for _, p := range problems {
		problem, _ := p.(map[string]any)
		id, severity := fmt.Sprint(problem["id"]), fmt.Sprint(problem["severity"])
		if listed[severity] == nil {
			listed[severity] = map[string]bool{}
		}
		listed[severity][id] = true
		tolerated := slices.Contains(order, severity) && !slices.Contains(forbidden, severity)
		harmless = harmless && (tolerated || slices.Contains(ignored, any(id)))
	}
	for _, severity := range forbidden {
		n, ok := counts[severity].(int)
		if !ok {
			return "no-answer"
		}
		harmless = harmless && n == len(listed[severity])
	}
	age := time.Since(at).Abs()
	limit, err := 720*time.Hour, error(nil)
	if text, ok := c.parameters["maxAge"].(string); ok {
		limit, err = time.ParseDuration(text)
	}
	switch {
	case !harmless:
		return "problems"
	case allow || err == nil && age <= limit:
		return ""
	}
	return "scan-too-old"
}

// question returns the question about an image, or "" if the policy needs no answer.
func (c modelCase) question(i podImage) string {
	if c.kind == policies.ImageDigests || classOf(i.ref) != "oci-registry" || !pinned(i.ref) || c.revoked(i) || c.exempt(i) || c.underBreakGlass(i) {
		return ""
	}
	if c.kind == policies.ScannedImages {
		return gatekeeper.ScanQuestion(i.ref.(string))
	}
	if c.keys() == nil || c.keysAre(0) {
		return ""
	}
	return gatekeeper.Question(i.ref.(string), c.keys())
}

// keys returns the allowed keys, or nil if they are invalid.
func (c modelCase) keys() []string {
	list, ok := c.parameters["keys"].([]any)
	if !ok {
		return nil
	}
	keys := []string{}
	for _, k := range list {
		key, ok := k.(string)
		if !ok {
			return nil
		}
		keys = append(keys, key)
	}
	return keys
}

// keysAre reports whether the policy has a valid list of n keys.
func (c modelCase) keysAre(n int) bool {
	keys := c.keys()
	return c.kind == policies.SignedImages && keys != nil && len(keys) == n
}

func (c modelCase) parameterIs(parameter string, value any) bool {
	return c.parameters[parameter] == value
}

func (c modelCase) underBreakGlass(i podImage) bool {
	honoured, given := c.parameters["breakGlass"]
	annotations, _ := i.annotations.(map[string]any)
	return (!given || honoured == "Honor") && classOf(i.ref) == "oci-registry" &&
		annotations["oracle.image-policy.k8s.io/break-glass"] == "true"
}

func (c modelCase) exempt(i podImage) bool {
	if classOf(i.ref) == "ambiguous" {
		return false
	}
	name, digest, _ := strings.Cut(i.ref.(string), "@")
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		name = name[:colon]
	}
	patterns, _ := c.parameters["exemptImages"].([]any)
	exemptions, _ := c.parameters["exemptions"].([]any)
	for _, e := range exemptions {
		text, _ := at(e, "until").(string)
		// OPA counts nanoseconds, which end in 2262. The schema rejects later years.
		if until, err := time.Parse(time.RFC3339, text); err == nil && until.After(time.Now()) && until.Year() < 2262 {
			more, _ := at(e, "images").([]any)
			patterns = append(slices.Clone(patterns), more...)
		}
	}
	return slices.ContainsFunc(patterns, func(p any) bool {
		pattern, wanted, _ := strings.Cut(p.(string), "@")
		path, below := strings.CutSuffix(pattern, "/**")
		if host, rest, ok := strings.Cut(path, "/"); !ok || !strings.ContainsAny(host, ".:") || strings.Contains(rest, "*") {
			return false // The pattern has no host, or is invalid.
		}
		return (name == path && !below || below && strings.HasPrefix(name, path+"/")) && (wanted == "" || wanted == digest)
	})
}

// revoked reports whether the policy forbids an image by its digest. A repository of OCI
// Registry is the same under every host.
func (c modelCase) revoked(i podImage) bool {
	list, _ := c.parameters["revoked"].([]any)
	if c.kind != policies.SignedImages || classOf(i.ref) == "ambiguous" || !pinned(i.ref) {
		return false
	}
	return slices.ContainsFunc(list, func(entry any) bool {
		digest, _ := at(entry, "digest").(string)
		named, _ := at(entry, "image").(string)
		_, own, _ := strings.Cut(i.ref.(string), "@")
		return digest == own || named != "" && repositoryAndDigest(named) == repositoryAndDigest(i.ref.(string))
	})
}

func repositoryAndDigest(ref string) string {
	name, digest, _ := strings.Cut(ref, "@")
	host, path, _ := strings.Cut(name, "/")
	path, _, _ = strings.Cut(path, ":")
	if classOf(ref) == "oci-registry" {
		host = "OCI Registry"
	}
	return host + "/" + path + "@" + digest
}

func classOf(ref any) string {
	text, ok := ref.(string)
	if !ok {
		return "ambiguous"
	}
	return image.Classify(text).String()
}

func pinned(ref any) bool {
	text, _ := ref.(string)
	return strings.Contains(text, "@sha256:")
}

// A podImage is the image of a container or volume. place names the container or volume in
// messages, position identifies it in the object.
type podImage struct {
	place, position string
	ref             any
	annotations     any
}

// unchanged reports whether old is the same image: by its digest, or by the same reference
// in the same container.
func (i podImage) unchanged(old podImage) bool {
	if !equalJSON(i.ref, old.ref) {
		return false
	}
	return i.position == old.position || i.pinned()
}

// pinned reports whether an image has a valid digest.
func (i podImage) pinned() bool { return pinned(i.ref) && classOf(i.ref) != "ambiguous" }

func imagesOf(object any) []podImage {
	var found []podImage
	for _, pod := range podsOf(object) {
		found = append(found, imagesOfPod(pod)...)
	}
	return found
}

func imagesOfPod(pod map[string]any) []podImage {
	var found []podImage
	spec := pod["spec"].(map[string]any)
	for _, field := range []string{"containers", "ephemeralContainers", "initContainers"} {
		for index, c := range entries(spec[field]) {
			container, _ := c.(map[string]any)
			found = append(found, podImage{placeOf(field, index, container), positionOf(pod, field, index, container), container["image"], pod["annotations"]})
		}
	}
	for index, v := range entries(spec["volumes"]) {
		volume, _ := v.(map[string]any)
		if volume["image"] == nil {
			continue
		}
		source, _ := volume["image"].(map[string]any)
		found = append(found, podImage{placeOf("volumes", index, volume), positionOf(pod, "volumes", index, volume), source["reference"], pod["annotations"]})
	}
	return found
}

func placeOf(field, index string, holder map[string]any) string {
	if name, ok := holder["name"].(string); ok {
		return field + "/" + name
	}
	return field + "/" + index
}

// positionOf distinguishes a container named 0 from the first container without a name.
func positionOf(pod map[string]any, field, index string, holder map[string]any) string {
	if name, ok := holder["name"].(string); ok {
		return fmt.Sprintf("%s %s name %s", pod["at"], field, name)
	}
	return fmt.Sprintf("%s %s index %s", pod["at"], field, index)
}

// podsOf returns the Pods and Pod templates of an object, at all paths that the policies read.
func podsOf(object any) []map[string]any {
	if _, ok := object.(map[string]any); !ok {
		return nil
	}
	type found struct {
		at       string
		template any
	}
	templates := []found{{"", object}}
	for _, path := range []string{"template", "spec template", "spec jobTemplate spec template", "data spec template"} {
		templates = append(templates, found{path, at(object, strings.Fields(path)...)})
	}
	jobs, _ := at(object, "spec", "replicatedJobs").([]any)
	for i, job := range jobs {
		name := at(job, "name")
		if name == nil {
			name = i
		}
		templates = append(templates, found{fmt.Sprintf("job %T %v", name, name), at(job, "template", "spec", "template")})
	}
	var pods []map[string]any
	for _, t := range templates {
		fields, isObject := t.template.(map[string]any)
		spec, _ := fields["spec"].(map[string]any)
		isPod := isObject && t.at == "data spec template" && isRevision(object)
		for _, field := range []string{"containers", "ephemeralContainers", "initContainers"} {
			value, ok := spec[field]
			isPod = isPod || ok && value != false
		}
		if isPod {
			if spec == nil {
				spec = map[string]any{}
			}
			pods = append(pods, map[string]any{"at": t.at, "spec": spec, "annotations": at(t.template, "metadata", "annotations")})
		}
	}
	return pods
}

func at(in any, path ...string) any {
	for _, field := range path {
		fields, _ := in.(map[string]any)
		in = fields[field]
	}
	return in
}

func isRevision(object any) bool {
	version, _ := at(object, "apiVersion").(string)
	return at(object, "kind") == "ControllerRevision" && strings.HasPrefix(version, "apps/")
}

// unreadableParts returns the violations for parts that may hide an image. The key names the part.
func unreadableParts(object any) map[string]string {
	unreadable := map[string]string{}
	pods := podsOf(object)
	if len(pods) == 0 && !isRevision(object) {
		unreadable["no pod"] = "object: no-pod-spec"
	}
	for _, pod := range pods {
		for _, field := range []string{"containers", "ephemeralContainers", "initContainers", "volumes"} {
			value := pod["spec"].(map[string]any)[field]
			if _, ok := value.([]any); !ok && value != nil {
				text, _ := json.Marshal(value)
				unreadable[field+string(text)] = field + ": unreadable"
			}
		}
	}
	return unreadable
}

// entries returns the elements of a list, or the values of an object.
func entries(value any) map[string]any {
	found := map[string]any{}
	switch value := value.(type) {
	case []any:
		for i, element := range value {
			found[strconv.Itoa(i)] = element
		}
	case map[string]any:
		return value
	}
	return found
}

func equalJSON(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}
