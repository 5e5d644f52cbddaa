package policies_test

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// The specification of OKEBreakGlass.

const (
	glassMark  = "oracle.image-policy.k8s.io/break-glass"
	reasonMark = "oke-sign.dev/break-glass-reason"
	untilMark  = "oke-sign.dev/break-glass-until"
)

// breakGlass adds what OKEBreakGlass has against the request.
func (c modelCase) breakGlass(found map[string]bool, crowded bool) {
	var before []map[string]any
	if c.operation == "UPDATE" {
		before = podsOf(c.old)
	}
	used := false
	for _, pod := range podsOf(c.object) {
		if slices.ContainsFunc(before, func(old map[string]any) bool { return sameMarks(pod, old) }) && !bringsImage(pod, before) {
			continue
		}
		notes, _ := pod["annotations"].(map[string]any)
		value, given := notes[glassMark]
		switch {
		case value == "true":
			used = true
			c.checkAnnotations(found, notes)
			for _, i := range imagesOfPod(pod) {
				if c.is("requireDigest", true) && !crowded && !i.pinned() {
					found[i.place+": no-digest"] = true
				}
			}
		case given && value != "false":
			found["break-glass: no-effect"] = true
		}
	}
	if used && !c.permitted() {
		found["break-glass: not-allowed"] = true
	}
	for what := range patchesIn(c.object) {
		if (c.operation != "UPDATE" || !patchesIn(c.old)[what]) && !c.permitted() {
			found["data: not-allowed"] = true
		}
	}
}

// checkAnnotations adds what is wrong with the annotations of a Pod under break-glass.
func (c modelCase) checkAnnotations(found map[string]bool, notes map[string]any) {
	if c.is("report", true) {
		found["break-glass: in-use"] = true
	}
	if reason, _ := notes[reasonMark].(string); c.is("requireReason", true) && strings.Trim(reason, "\t\n\f\r ") == "" {
		found["break-glass: no-reason"] = true
	}
	longest, limited := c.parameters["maxDuration"].(string)
	text, announced := notes[untilMark]
	if !limited && !announced {
		return
	}
	limit, unreadable := time.ParseDuration(longest)
	end, err := time.Parse(time.RFC3339, asText(text))
	switch {
	case !announced:
		found["break-glass: no-end"] = true
	case err != nil || end.Year() > 2261:
		found["break-glass: bad-end"] = true
	case !end.After(time.Now()):
		found["break-glass: expired"] = true
	case limited && unreadable != nil:
		found["break-glass: bad-end"] = true
	case limited && time.Until(end) > limit:
		found["break-glass: too-long"] = true
	}
}

// permitted reports whether the user may break the glass, or makes what others asked for.
func (c modelCase) permitted() bool {
	users, groups, accounts := c.parameters["users"], c.parameters["groups"], c.parameters["serviceAccounts"]
	if c.operation == "" || users == nil && groups == nil && accounts == nil {
		return true
	}
	if slices.Contains(texts(users), c.user) || slices.ContainsFunc(c.groups, func(g string) bool { return slices.Contains(texts(groups), g) }) {
		return true
	}
	for _, account := range texts(accounts) {
		if "system:serviceaccount:"+strings.Replace(account, "/", ":", 1) == c.user {
			return true
		}
	}
	version, _ := at(c.object, "apiVersion").(string)
	kind, _ := at(c.object, "kind").(string)
	made := map[string]string{
		"system:serviceaccount:kube-system:statefulset-controller": "v1 Pod, apps/v1 ControllerRevision",
		"system:serviceaccount:kube-system:replicaset-controller":  "v1 Pod",
	}[c.user]
	return c.operation == "CREATE" && slices.Contains(strings.Split(made, ", "), version+" "+kind)
}

// sameMarks reports whether two Pods stand at one place under the same annotations.
func sameMarks(a, b map[string]any) bool {
	marks := func(pod map[string]any) map[string]any {
		notes, _ := pod["annotations"].(map[string]any)
		marks := map[string]any{}
		for _, name := range []string{glassMark, reasonMark, untilMark} {
			if value, ok := notes[name]; ok {
				marks[name] = value
			}
		}
		return marks
	}
	return a["at"] == b["at"] && same(marks(a), marks(b))
}

// bringsImage reports whether a Pod has an image that it did not have before under the
// same annotations.
func bringsImage(pod map[string]any, before []map[string]any) bool {
	var had []placed
	for _, old := range before {
		if sameMarks(pod, old) {
			had = append(had, imagesOfPod(old)...)
		}
	}
	return slices.ContainsFunc(imagesOfPod(pod), func(i placed) bool {
		return !slices.ContainsFunc(had, func(old placed) bool { return i.is(old) })
	})
}

// patchesIn are the ways in which a ControllerRevision leads to another Pod than the one
// in it.
func patchesIn(object any) map[string]bool {
	found := map[string]bool{}
	if !isRevision(object) {
		return found
	}
	if len(imagesOf(object)) > 0 && at(object, "data", "spec", "template", "$patch") != "replace" {
		found["a patch"] = true
	}
	// What encoding/json takes for a field of a StatefulSet, and is not read as one here.
	for path, names := range map[string]string{
		"data":                        "spec",
		"data spec":                   "template",
		"data spec template":          "metadata spec",
		"data spec template metadata": "annotations",
	} {
		fields, _ := at(object, strings.Fields(path)...).(map[string]any)
		for key := range maps.Keys(fields) {
			for _, name := range strings.Fields(names) {
				if key != name && strings.EqualFold(key, name) {
					found[key] = true // the message does not tell where
				}
			}
		}
	}
	return found
}

func asText(value any) string {
	text, _ := value.(string)
	return text
}

func texts(value any) []string {
	list, _ := value.([]any)
	var found []string
	for _, v := range list {
		found = append(found, asText(v))
	}
	return found
}
