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

// The specification: what the policies on images are to say, written once more and
// in another way. It reads JSON as it comes, and knows nothing of Rego.

// want are the place and reason of every violation.
func (c modelCase) want() []string {
	found, judged := c.held()
	if c.kind == policies.BreakGlass {
		c.breakGlass(found, len(judged) == 0 && found["object: too-many-images"])
	} else {
		c.images(found, judged)
	}
	want := slices.Collect(maps.Keys(found))
	slices.Sort(want)
	if want == nil {
		want = []string{}
	}
	return want
}

// held are the violations of every policy, and the images that the request answers for.
func (c modelCase) held() (found map[string]bool, judged []placed) {
	found = map[string]bool{}
	judged = imagesOf(c.object)
	hidden := hiddenIn(c.object)
	if c.operation == "UPDATE" {
		old := imagesOf(c.old)
		judged = slices.DeleteFunc(judged, func(i placed) bool {
			return slices.ContainsFunc(old, func(o placed) bool { return i.is(o) })
		})
		if _, ok := c.old.(map[string]any); ok {
			for key := range hiddenIn(c.old) {
				delete(hidden, key)
			}
		}
	}
	if len(judged) > 250 {
		judged, hidden["too many"] = nil, "object: too-many-images"
	}
	for _, violation := range hidden {
		found[violation] = true
	}
	return found, judged
}

func (c modelCase) images(found map[string]bool, judged []placed) {
	questions := map[string]string{} // by image
	for _, i := range judged {
		if q := c.question(i); q != "" {
			questions[i.ref.(string)] = q
		}
	}
	values := c.world.plain(slices.Sorted(maps.Values(questions)))
	for _, i := range judged {
		q := questions[fmt.Sprint(i.ref)]
		value, _ := values[q].(map[string]any)
		if reason := c.reason(i, q != "", value); reason != "" {
			found[i.place+": "+reason] = true
		}
		if c.is("report", true) && c.lists(0) && classOf(i.ref) == "oci-registry" && !c.exempt(i) && !c.underBreakGlass(i) {
			found[i.place+": no-key-listed"] = true
		}
	}
}

// reason is why an image is refused, or nothing.
func (c modelCase) reason(i placed, asked bool, value map[string]any) string {
	switch class := classOf(i.ref); {
	case i.ref == nil || i.ref == "":
		return "no-image"
	case class == "ambiguous":
		return "ambiguous"
	case c.exempt(i):
		return ""
	case c.kind == policies.ImageDigests:
		if pinned(i.ref) || c.underBreakGlass(i) || class == "other" && c.is("registries", "OCIRegistry") {
			return ""
		}
		return "no-digest"
	case class == "other":
		if c.is("otherRegistries", "Allow") {
			return ""
		}
		return "not-oci-registry"
	case c.underBreakGlass(i):
		return ""
	case c.kind == policies.SignedImages && c.lists(0):
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
	case value["signed"] == false && word.MatchString(reason) && reason != "signed":
		return reason
	}
	return "no-answer"
}

var word = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

func (c modelCase) scanReason(value map[string]any) string {
	allow := c.is("unknown", "Allow")
	if reason, ok := value["reason"].(string); ok && value["known"] == false && word.MatchString(reason) {
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

// question is what has to be asked about an image, or nothing.
func (c modelCase) question(i placed) string {
	if c.kind == policies.ImageDigests || classOf(i.ref) != "oci-registry" || !pinned(i.ref) || c.exempt(i) || c.underBreakGlass(i) {
		return ""
	}
	if c.kind == policies.ScannedImages {
		return gatekeeper.ScanQuestion(i.ref.(string))
	}
	if c.keys() == nil || c.lists(0) {
		return ""
	}
	return gatekeeper.Question(i.ref.(string), c.keys())
}

// keys are those of the policy, or nil if they cannot be read.
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

func (c modelCase) lists(n int) bool {
	keys := c.keys()
	return c.kind == policies.SignedImages && keys != nil && len(keys) == n
}

func (c modelCase) is(parameter string, value any) bool { return c.parameters[parameter] == value }

func (c modelCase) underBreakGlass(i placed) bool {
	honoured, given := c.parameters["breakGlass"]
	annotations, _ := i.annotations.(map[string]any)
	return (!given || honoured == "Honor") && classOf(i.ref) == "oci-registry" &&
		annotations["oracle.image-policy.k8s.io/break-glass"] == "true"
}

func (c modelCase) exempt(i placed) bool {
	if classOf(i.ref) == "ambiguous" {
		return false
	}
	name, digest, _ := strings.Cut(i.ref.(string), "@")
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		name = name[:colon]
	}
	patterns, _ := c.parameters["exemptImages"].([]any)
	return slices.ContainsFunc(patterns, func(p any) bool {
		pattern, wanted, _ := strings.Cut(p.(string), "@")
		path, below := strings.CutSuffix(pattern, "/**")
		if host, rest, ok := strings.Cut(path, "/"); !ok || !strings.ContainsAny(host, ".:") || strings.Contains(rest, "*") {
			return false // it has no host, or is no pattern at all
		}
		return (name == path && !below || below && strings.HasPrefix(name, path+"/")) && (wanted == "" || wanted == digest)
	})
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

// placed is an image and where it stands: in words, and in the object.
type placed struct {
	place, at   string
	ref         any
	annotations any
}

// is reports whether an image was there before: the same content, or the same words
// in the same container.
func (p placed) is(old placed) bool {
	if !same(p.ref, old.ref) {
		return false
	}
	return p.at == old.at || p.pinned()
}

// pinned reports whether an image has a digest that counts.
func (p placed) pinned() bool { return pinned(p.ref) && classOf(p.ref) != "ambiguous" }

func imagesOf(object any) []placed {
	var found []placed
	for _, pod := range podsOf(object) {
		found = append(found, imagesOfPod(pod)...)
	}
	return found
}

func imagesOfPod(pod map[string]any) []placed {
	var found []placed
	spec := pod["spec"].(map[string]any)
	for _, field := range []string{"containers", "ephemeralContainers", "initContainers"} {
		for index, c := range entries(spec[field]) {
			container, _ := c.(map[string]any)
			found = append(found, placed{placeOf(field, index, container), spotOf(pod, field, index, container), container["image"], pod["annotations"]})
		}
	}
	for index, v := range entries(spec["volumes"]) {
		volume, _ := v.(map[string]any)
		if volume["image"] == nil {
			continue
		}
		source, _ := volume["image"].(map[string]any)
		found = append(found, placed{placeOf("volumes", index, volume), spotOf(pod, "volumes", index, volume), source["reference"], pod["annotations"]})
	}
	return found
}

func placeOf(field, index string, holder map[string]any) string {
	if name, ok := holder["name"].(string); ok {
		return field + "/" + name
	}
	return field + "/" + index
}

// spotOf tells a container that is called 0 from the first one without a name.
func spotOf(pod map[string]any, field, index string, holder map[string]any) string {
	if name, ok := holder["name"].(string); ok {
		return fmt.Sprintf("%s %s name %s", pod["at"], field, name)
	}
	return fmt.Sprintf("%s %s index %s", pod["at"], field, index)
}

// podsOf are the Pods and Pod templates of an object, wherever they may stand.
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

// hiddenIn are violations for what may hide an image, by what is hidden where.
func hiddenIn(object any) map[string]string {
	hidden := map[string]string{}
	pods := podsOf(object)
	if len(pods) == 0 && !isRevision(object) {
		hidden["no pod"] = "object: no-pod-spec"
	}
	for _, pod := range pods {
		for _, field := range []string{"containers", "ephemeralContainers", "initContainers", "volumes"} {
			value := pod["spec"].(map[string]any)[field]
			if _, ok := value.([]any); !ok && value != nil {
				text, _ := json.Marshal(value)
				hidden[field+string(text)] = field + ": unreadable"
			}
		}
	}
	return hidden
}

// entries are the elements of a list, or the values of an object.
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

func same(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}
