package policies_test

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// This file is the specification of OKEBreakGlass.

const (
	breakGlassAnnotation = "oracle.image-policy.k8s.io/break-glass"
	reasonAnnotation     = "oke-sign.dev/break-glass-reason"
	untilAnnotation      = "oke-sign.dev/break-glass-until"
)

// checkBreakGlass adds the violations of OKEBreakGlass.
func (c modelCase) checkBreakGlass(found map[string]bool, tooMany bool) {
	var before []map[string]any
	if c.operation == "UPDATE" {
		before = podsOf(c.old)
	}
	used := false
	for _, pod := range podsOf(c.object) {
		if slices.ContainsFunc(before, func(old map[string]any) bool { return sameAnnotations(pod, old) }) && !hasNewImage(pod, before) {
			continue
		}
		annotations, _ := pod["annotations"].(map[string]any)
		value, given := annotations[breakGlassAnnotation]
		switch {
		case value == "true":
			used = true
			c.checkAnnotations(found, annotations)
			for _, i := range imagesOfPod(pod) {
				if c.parameterIs("requireDigest", true) && !tooMany && !i.pinned() {
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
	for what := range revisionViolations(c.object) {
		if (c.operation != "UPDATE" || !revisionViolations(c.old)[what]) && !c.permitted() {
			found["data: not-allowed"] = true
		}
	}
}

// checkAnnotations adds the violations for the annotations of a Pod under break-glass.
func (c modelCase) checkAnnotations(found map[string]bool, annotations map[string]any) {
	if c.parameterIs("report", true) {
		found["break-glass: in-use"] = true
	}
	if reason, _ := annotations[reasonAnnotation].(string); c.parameterIs("requireReason", true) && strings.Trim(reason, "\t\n\f\r ") == "" {
		found["break-glass: no-reason"] = true
	}
	longest, limited := c.parameters["maxDuration"].(string)
	text, given := annotations[untilAnnotation]
	if !limited && !given {
		return
	}
	limit, unreadable := time.ParseDuration(longest)
	end, err := time.Parse(time.RFC3339, asText(text))
	switch {
	case !given:
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

// permitted reports whether the user may use break-glass, or is a controller that creates an
// object from one that was checked before.
func (c modelCase) permitted() bool {
	users, groups, accounts := c.parameters["users"], c.parameters["groups"], c.parameters["serviceAccounts"]
	if c.operation == "" || users == nil && groups == nil && accounts == nil {
		return true
	}
	if slices.Contains(asTexts(users), c.user) || slices.ContainsFunc(c.groups, func(g string) bool { return slices.Contains(asTexts(groups), g) }) {
		return true
	}
	for _, account := range asTexts(accounts) {
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

// sameAnnotations reports whether two Pods have the same path in the object and the same
// break-glass annotations.
func sameAnnotations(a, b map[string]any) bool {
	breakGlassOnly := func(pod map[string]any) map[string]any {
		all, _ := pod["annotations"].(map[string]any)
		found := map[string]any{}
		for _, name := range []string{breakGlassAnnotation, reasonAnnotation, untilAnnotation} {
			if value, ok := all[name]; ok {
				found[name] = value
			}
		}
		return found
	}
	return a["at"] == b["at"] && equalJSON(breakGlassOnly(a), breakGlassOnly(b))
}

// hasNewImage reports whether a Pod has an image that it did not have before under the same
// annotations.
func hasNewImage(pod map[string]any, before []map[string]any) bool {
	var had []podImage
	for _, old := range before {
		if sameAnnotations(pod, old) {
			had = append(had, imagesOfPod(old)...)
		}
	}
	return slices.ContainsFunc(imagesOfPod(pod), func(i podImage) bool {
		return !slices.ContainsFunc(had, func(old podImage) bool { return i.unchanged(old) })
	})
}

// revisionViolations returns the causes for which the Pod of a ControllerRevision may differ
// from the template in it.
func revisionViolations(object any) map[string]bool {
	found := map[string]bool{}
	if !isRevision(object) {
		return found
	}
	if len(imagesOf(object)) > 0 && at(object, "data", "spec", "template", "$patch") != "replace" {
		found["a patch"] = true
	}
	// The controller uses encoding/json, which accepts other spellings of a field. The policy
	// does not read those.
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
					found[key] = true // The message does not name the path.
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

func asTexts(value any) []string {
	list, _ := value.([]any)
	var found []string
	for _, v := range list {
		found = append(found, asText(v))
	}
	return found
}
