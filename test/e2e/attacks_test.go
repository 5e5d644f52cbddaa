package e2e_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/oke-sign/oke-sign/test/attacksurface"
)

// inAnHour is an end time of break-glass that the policy accepts.
var inAnHour = time.Now().Add(50 * time.Minute)

// allAttacks returns the attacks that follow from the listed requests, and those that
// need knowledge about controllers.
func allAttacks(requests []attacksurface.Request) []attack {
	var all []attack
	for _, c := range carriers {
		all = append(all, c.attacks(requests)...)
	}
	for _, r := range scaled(requests) {
		all = append(all, scaleAttacks(r, requests)...)
	}
	all = append(all, annotationAttacks(requests)...)
	all = append(all, podAttacks()...)
	all = append(all, revisionAttacks()...)
	all = append(all, identityAttacks()...)
	all = append(all, oldAttacks()...)
	all = append(all, autoscaleAttacks(requests)...)
	all = append(all, namespaceAttacks(requests)...)
	return append(all, gatekeeperAttacks(requests)...)
}

// forms returns the forms of a change: an update, or each kind of patch.
func forms(w attacksurface.Request) []form {
	switch w.Verb {
	case "update":
		return []form{asJSON}
	case "patch":
		return []form{merge, strategic, jsonPatch, apply}
	}
	return nil
}

// scaled returns the scale subresources of workloads.
func scaled(requests []attacksurface.Request) []target {
	var all []target
	for _, w := range requests {
		if r := target(w.Target()); w.Subresource == "scale" && w.Verb == "update" && strings.HasPrefix(string(r.base()), "apps/") || r == "v1/replicationcontrollers/scale" && w.Verb == "update" {
			all = append(all, r)
		}
	}
	return all
}

// scaleAttacks give replicas to a workload that has the image and no replicas. The
// policy warns about the workload, and must deny its Pods.
func scaleAttacks(r target, requests []attacksurface.Request) []attack {
	var all []attack
	for _, w := range requests {
		if target(w.Target()) != r || len(w.Carries) == 0 {
			continue
		}
		for _, f := range forms(w) {
			all = append(all, attack{name: string(r) + " scaled by " + f.String(), run: func(i *intruder) error {
				base := carrierOf(r.base())
				if _, err := i.prepare(base.target, base.object(i, i.bad, true)); err != nil {
					return err
				}
				scale := object{"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": object{"name": i.name}, "spec": object{"replicas": 1}}
				var body any = scale
				switch f {
				case merge, strategic:
					body = object{"spec": object{"replicas": 1}}
				case jsonPatch:
					body = []object{{"op": "add", "path": "/spec/replicas", "value": 1}}
				}
				return i.strike(w.Verb, r, f, body)
			}})
		}
	}
	return all
}

func carrierOf(r target) carrier {
	for _, c := range carriers {
		if c.target == r {
			return c
		}
	}
	panic("no carrier " + r)
}

// annotationAttacks put a Pod with a signed image under break-glass, with every request
// that takes annotations for a Pod. A second request sets the image.
func annotationAttacks(requests []attacksurface.Request) []attack {
	var all []attack
	for _, w := range requests {
		r := target(w.Target())
		if !takesAnnotations(w) {
			continue
		}
		if w.Verb == "create" {
			all = append(all, attack{name: string(r) + " with break-glass, image after", run: func(i *intruder) error {
				if err := i.createUnderBreakGlass(r); err != nil {
					return err
				}
				return i.changeImage()
			}})
			continue
		}
		for _, f := range forms(w) {
			all = append(all, attack{name: fmt.Sprintf("%s with break-glass by %s, image after", r, f), run: func(i *intruder) error {
				if err := i.annotate(w.Verb, r, f); err != nil {
					return err
				}
				return i.changeImage()
			}})
		}
	}
	return append(all, attack{name: "v1/pods/status with break-glass, ephemeral container by tag after", run: func(i *intruder) error {
		if err := i.annotate("patch", "v1/pods/status", merge); err != nil {
			return err
		}
		return i.strike("patch", "v1/pods/ephemeralcontainers", strategic, ephemeral(i.tagged))
	}})
}

// takesAnnotations reports whether a request takes annotations for an existing Pod.
func takesAnnotations(w attacksurface.Request) bool {
	for _, p := range w.Carries {
		if p.Content == attacksurface.Annotations {
			return w.Verb != "create" || w.Target() != "v1/pods"
		}
	}
	return false
}

// annotate puts a Pod with a signed image under break-glass.
func (i *intruder) annotate(verb string, r target, f form) error {
	pod := podCarrier(i, i.good, true)
	pod["spec"].(object)["schedulerName"] = "nobody" // no Node here can resize Pods
	now, err := i.prepare("v1/pods", pod)
	if err != nil {
		return err
	}
	change := object{"metadata": object{"annotations": oncallBreakGlass()}}
	var body any = change
	switch f {
	case asJSON:
		now["metadata"].(object)["annotations"] = oncallBreakGlass()
		body = now
	case jsonPatch:
		body = []object{{"op": "add", "path": "/metadata/annotations", "value": oncallBreakGlass()}}
	case apply:
		body = object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": i.name, "annotations": oncallBreakGlass()}}
	}
	return i.strike(verb, r, f, body)
}

// createUnderBreakGlass binds a Pod with a signed image to a node, or evicts it, with
// break-glass in the metadata. The Pod waits for a scheduler that does not exist.
func (i *intruder) createUnderBreakGlass(r target) error {
	pod := podCarrier(i, i.good, true)
	pod["spec"].(object)["schedulerName"] = "nobody"
	if _, err := i.prepare("v1/pods", pod); err != nil {
		return err
	}
	body := object{"apiVersion": "v1", "kind": "Binding", "metadata": object{"name": i.name, "annotations": oncallBreakGlass()}, "target": object{"kind": "Node", "name": "node-0"}}
	if r.sub() == "eviction" {
		body = object{
			"apiVersion": "policy/v1", "kind": "Eviction", "metadata": object{"name": i.name, "annotations": oncallBreakGlass()},
			"deleteOptions": object{"dryRun": []string{"All"}},
		}
	}
	return i.strike("create", r, asJSON, body)
}

// changeImage sets the image of the intruder's Pod.
func (i *intruder) changeImage() error {
	_, err := i.as(i.owner, "patch", "v1/pods", strategic, object{"spec": object{"containers": []object{{"name": "main", "image": i.bad}}}})
	return err
}

func ephemeral(image string) object {
	return object{"spec": object{"ephemeralContainers": []object{{"name": "debugger", "image": image}}}}
}

// podAttacks create Pods with the image in every field, and Pods that pretend to be
// something else.
func podAttacks() []attack {
	pod := func(name string, change func(i *intruder, pod object)) attack {
		return attack{name: "v1/pods " + name, run: func(i *intruder) error {
			o := podCarrier(i, i.good, false)
			change(i, o)
			return i.strike("create", "v1/pods", asJSON, o)
		}}
	}
	in := func(field string, with func(image string) any) func(*intruder, object) {
		return func(i *intruder, pod object) { pod["spec"].(object)[field] = with(i.bad) }
	}
	claims := func(meta func(*intruder) object) func(*intruder, object) {
		return func(i *intruder, pod object) {
			maps.Copy(pod["metadata"].(object), meta(i))
			maps.Copy(pod["spec"].(object), object{"nodeName": "node-0", "containers": []object{{"name": "main", "image": i.bad}}})
		}
	}
	owned := func(i *intruder) object {
		return object{"annotations": oncallBreakGlass(), "ownerReferences": []object{
			{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": i.name, "uid": "0d5c2c1e-6d5f-4f2e-9d6b-3a5d0c3a5b11", "controller": true},
		}}
	}
	mirror := oncallBreakGlass()
	mirror["kubernetes.io/config.mirror"], mirror["kubernetes.io/config.source"] = "0d5c2c1e", "file"
	return []attack{
		pod("in an init container", in("initContainers", func(image string) any { return []object{{"name": "first", "image": image}} })),
		pod("in a sidecar", in("initContainers", func(image string) any {
			return []object{{"name": "sidecar", "image": image, "restartPolicy": "Always"}}
		})),
		pod("in an image volume", in("volumes", func(image string) any { return []object{{"name": "model", "image": object{"reference": image}}} })),
		pod("as a mirror of a static Pod", claims(func(*intruder) object { return object{"annotations": mirror} })),
		pod("as if a ReplicaSet owned it", claims(owned)),
		{name: "v1/pods as YAML, with the image twice", run: func(i *intruder) error {
			text := fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {containers: [{name: main, image: %q, image: %q}]}}", i.name, i.good, i.bad)
			return i.strike("create", "v1/pods", asYAML, []byte(text))
		}},
		{name: "v1/pods as JSON, with the image twice", run: func(i *intruder) error {
			text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": {"containers": [{"name": "main", "image": %q, "image": %q}]}}`, i.name, i.good, i.bad)
			i.used = append(i.used, "v1/pods create")
			_, err := i.owner.send(i, "POST", target("v1/pods").path(i.namespace, ""), asJSON, nil, []byte(text))
			return err
		}},
	}
}

// revisionAttacks replace the ControllerRevision from which the controller of a
// StatefulSet makes the Pods below the partition.
func revisionAttacks() []attack {
	return []attack{
		{name: "apps/v1/controllerrevisions of a StatefulSet, forged under break-glass", run: func(i *intruder) error {
			return forge(i, i.bad, oncallBreakGlass())
		}},
		{name: "apps/v1/controllerrevisions of a StatefulSet, forged under break-glass by tag", run: func(i *intruder) error {
			return forge(i, i.tagged, oncallBreakGlass())
		}},
		{name: "apps/v1/controllerrevisions of a StatefulSet, forged", run: func(i *intruder) error {
			return forge(i, i.bad, nil)
		}},
		{name: "apps/v1/controllerrevisions of a DaemonSet, forged under break-glass", stops: inert, run: forgeDaemon},
	}
}

// forge replaces the current revision of a StatefulSet, and makes the controller create
// the first Pod from it.
func forge(i *intruder, image string, annotations object) error {
	const sets, revisions = target("apps/v1/statefulsets"), target("apps/v1/controllerrevisions")
	set := scalable("StatefulSet")(i, i.good, false)
	if _, err := i.prepare(sets, set); err != nil {
		return err
	}
	now, err := i.awaits(sets, func(o object) bool {
		return at(o, "status", "currentRevision") != nil && at(o, "status", "readyReplicas") != nil
	})
	if err != nil {
		return err
	}
	name := at(now, "status", "currentRevision").(string)
	forged, err := i.owner.get(i, revisions, i.namespace, name)
	if err != nil {
		return err
	}
	template := at(forged, "data", "spec", "template").(object)
	template["metadata"].(object)["annotations"] = annotations
	template["spec"].(object)["containers"].([]any)[0].(object)["image"] = image
	if err := i.replaceRevision(forged); err != nil {
		return err
	}
	// The StatefulSet's template does not change, so it brings no new image.
	partition := object{"spec": object{"updateStrategy": object{"rollingUpdate": object{"partition": 1}}}}
	if err := i.strike("patch", sets, merge, partition); err != nil {
		return err
	}
	return i.owner.remove(i, "v1/pods", i.namespace, i.name+"-0")
}

// replaceRevision deletes a revision and creates another with its name. It tries again
// if the controller was faster.
func (i *intruder) replaceRevision(forged object) error {
	const revisions = target("apps/v1/controllerrevisions")
	for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "managedFields"} {
		delete(forged["metadata"].(object), field)
	}
	for {
		if err := i.owner.remove(i, revisions, i.namespace, nameOf(forged)); err != nil {
			return err
		}
		err := i.strike("create", revisions, asJSON, forged)
		if !apierrors.IsAlreadyExists(err) || i.Err() != nil {
			return err
		}
	}
}

// forgeDaemon replaces the revision of a DaemonSet. Its controller creates Pods from
// the template in the DaemonSet, not from a revision.
func forgeDaemon(i *intruder) error {
	const sets, revisions = target("apps/v1/daemonsets"), target("apps/v1/controllerrevisions")
	set := carrierOf(sets).object(i, i.good, false)
	set["spec"].(object)["updateStrategy"] = object{"type": "OnDelete"}
	if _, err := i.prepare(sets, set); err != nil {
		return err
	}
	var pod, revision object
	find := func(r target, into *object) error {
		return i.admin.watch(i, r, i.namespace, map[string][]string{"labelSelector": {"app=" + i.name}}, func(o object) bool {
			*into = o
			return true
		})
	}
	if err := errors.Join(find("v1/pods", &pod), find(revisions, &revision)); err != nil {
		return err
	}
	template := at(revision, "data", "spec", "template").(object)
	template["metadata"].(object)["annotations"] = oncallBreakGlass()
	template["spec"].(object)["containers"].([]any)[0].(object)["image"] = i.bad
	if err := i.replaceRevision(revision); err != nil {
		return err
	}
	if err := i.owner.remove(i, "v1/pods", i.namespace, nameOf(pod)); err != nil {
		return err
	}
	// The replacement Pod shows which template it comes from.
	return i.admin.watch(i, "v1/pods", i.namespace, map[string][]string{"labelSelector": {"app=" + i.name}}, func(o object) bool {
		return nameOf(o) != nameOf(pod)
	})
}

// identityAttacks use break-glass under the name of a controller's service account.
func identityAttacks() []attack {
	return []attack{
		{name: "v1/serviceaccounts/token of an account called as a controller", run: func(i *intruder) error {
			account, err := i.namesake()
			if err != nil {
				return err
			}
			i.used = append(i.used, "v1/serviceaccounts/token create")
			path := target("v1/serviceaccounts/token").path(i.namespace, account)
			token, err := i.owner.send(i, "POST", path, asJSON, nil, object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": object{}})
			if err != nil {
				return err
			}
			return i.breakGlassWith(at(token, "status", "token").(string))
		}},
		{name: "v1/secrets with the token of an account called as a controller", run: func(i *intruder) error {
			account, err := i.namesake()
			if err != nil {
				return err
			}
			secret := object{
				"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
				"metadata": object{"name": i.name, "annotations": object{"kubernetes.io/service-account.name": account}},
			}
			if err := i.strike("create", "v1/secrets", asJSON, secret); err != nil {
				return err
			}
			filled, err := i.awaits("v1/secrets", func(o object) bool { return at(o, "data", "token") != nil })
			if err != nil {
				return err
			}
			token, err := decode(at(filled, "data", "token").(string))
			if err != nil {
				return err
			}
			return i.breakGlassWith(token)
		}},
	}
}

// namesake creates a service account with the name of a controller's and the rights of
// the namespace's owner.
func (i *intruder) namesake() (string, error) {
	const name = "statefulset-controller"
	_, err := i.owner.create(i, "v1/serviceaccounts", i.namespace, object{"metadata": object{"name": name}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", err
	}
	_, err = i.prepare("rbac.authorization.k8s.io/v1/rolebindings", object{
		"metadata": object{"name": i.name},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
		"subjects": []object{{"kind": "ServiceAccount", "name": name, "namespace": i.namespace}},
	})
	i.used = append(i.used, "rbac.authorization.k8s.io/v1/rolebindings create")
	return name, err
}

// breakGlassWith creates a Pod under break-glass as the account of a token.
func (i *intruder) breakGlassWith(token string) error {
	who := i.bearer(token)
	late := time.After(20 * time.Second)
	for {
		_, err := who.create(i, "v1/pods", i.namespace, carrierOf("v1/pods").underBreakGlass(i, i.bad))
		// The API server learns of a token and of rights a little later.
		unheard := apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) && strings.Contains(err.Error(), "cannot create resource")
		if !unheard {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-late:
			return err
		case <-i.Done():
			return err
		}
	}
}

// oldAttacks use objects from before the policy.
func oldAttacks() []attack {
	const sets, scale = target("apps/v1/replicasets"), target("apps/v1/replicasets/scale")
	expired := emergency(time.Now().Add(-time.Hour))
	oldSet := func(image func(*intruder) string, annotations object) func(*intruder) error {
		return func(i *intruder) error {
			set := scalable("ReplicaSet")(i, image(i), true)
			at(set, templateMeta...).(object)["annotations"] = annotations
			return i.existing(sets, set)
		}
	}
	digest, tag := func(i *intruder) string { return i.bad }, func(i *intruder) string { return i.tagged }
	scaleUp := func(i *intruder) error {
		return i.strike("patch", scale, merge, object{"spec": object{"replicas": 1}})
	}
	oldPod := func(i *intruder) error {
		pod := podCarrier(i, i.tagged, false)
		spec := pod["spec"].(object)
		spec["containers"] = append(spec["containers"].([]object), object{"name": "second", "image": i.good})
		return i.existing("v1/pods", pod)
	}
	return []attack{
		{name: "an old ReplicaSet whose break-glass is over, scaled", before: oldSet(digest, expired), run: scaleUp},
		{name: "an old ReplicaSet with a tag whose break-glass is over, scaled", before: oldSet(tag, expired), run: scaleUp},
		{name: "an old ReplicaSet with a tag whose break-glass holds, scaled", before: oldSet(tag, oncallBreakGlass()), run: scaleUp},
		{name: "an old ReplicaSet with a tag, scaled", before: oldSet(tag, nil), run: scaleUp},
		{name: "an old Pod with a tag, that tag in an ephemeral container", before: oldPod, run: func(i *intruder) error {
			return i.strike("patch", "v1/pods/ephemeralcontainers", strategic, ephemeral(i.tagged))
		}},
		{name: "an old Pod with a tag, that tag in another container", before: oldPod, run: func(i *intruder) error {
			return i.strike("patch", "v1/pods", strategic, object{"spec": object{"containers": []object{{"name": "second", "image": i.tagged}}}})
		}},
		{name: "an old StatefulSet, its Pod deleted", before: func(i *intruder) error {
			if err := i.existing("apps/v1/statefulsets", scalable("StatefulSet")(i, i.bad, false)); err != nil {
				return err
			}
			return i.pod(i.name + "-0")
		}, run: func(i *intruder) error { return i.owner.remove(i, "v1/pods", i.namespace, i.name+"-0") }},
	}
}

// existing creates, as the administrator, an object from before the policy.
func (i *intruder) existing(r target, o object) error {
	_, err := i.as(i.admin, "create", r, asJSON, o)
	return err
}

// autoscaleAttacks make the autoscaler add a second Pod to a ReplicaSet that has one
// from before the policy.
func autoscaleAttacks(requests []attacksurface.Request) []attack {
	const sets = target("apps/v1/replicasets")
	var all []attack
	for _, version := range []string{"autoscaling/v1", "autoscaling/v2"} {
		c := carrier{
			target: target(version + "/horizontalpodautoscalers"),
			object: func(i *intruder, _ string, atRest bool) object {
				name := i.name
				if atRest {
					name = "nothing"
				}
				return of(version, "HorizontalPodAutoscaler", i, object{"spec": object{
					"scaleTargetRef": object{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name},
					"minReplicas":    2, "maxReplicas": 3,
				}})
			},
			stored: func(i *intruder, o object) bool { return at(o, "spec", "scaleTargetRef", "name") == i.name },
		}
		for _, a := range c.attacks(requests) {
			a.before = func(i *intruder) error {
				if err := i.existing(sets, scalable("ReplicaSet")(i, i.bad, false)); err != nil {
					return err
				}
				_, err := i.awaits(sets, func(o object) bool { return at(o, "status", "replicas") == 1.0 })
				return err
			}
			all = append(all, a)
		}
	}
	return all
}

// namespaceAttacks change the labels that select namespaces for webhooks. They gain
// nothing where no policy applies.
func namespaceAttacks(requests []attacksurface.Request) []attack {
	var all []attack
	for _, w := range requests {
		r := target(w.Target())
		if r.base() != "v1/namespaces" || len(w.Carries) == 0 || w.Verb == "create" {
			continue
		}
		for _, f := range forms(w) {
			for label, value := range map[string]string{"admission.gatekeeper.sh/ignore": "x", "kubernetes.io/metadata.name": "kube-system"} {
				if label == "kubernetes.io/metadata.name" && f != asJSON {
					continue // Kubernetes sets this label itself
				}
				all = append(all, attack{name: fmt.Sprintf("%s with %s by %s", r, label, f), alone: true, run: func(i *intruder) error {
					return i.relabel(w.Verb, r, f, label, value)
				}})
			}
		}
	}
	return all
}

// relabel sets a label of the namespace, and then creates a Pod with the image.
func (i *intruder) relabel(verb string, r target, f form, label, value string) error {
	var body any = object{"metadata": object{"labels": object{label: value}}}
	switch f {
	case asJSON:
		now, err := i.owner.get(i, "v1/namespaces", "", i.namespace)
		if err != nil {
			return err
		}
		delete(now["metadata"].(object), "resourceVersion")
		now["metadata"].(object)["labels"].(object)[label] = value
		body = now
	case jsonPatch:
		body = []object{{"op": "add", "path": "/metadata/labels/" + strings.ReplaceAll(label, "/", "~1"), "value": value}}
	case apply:
		body = object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": i.namespace, "labels": object{label: value}}}
	}
	refused := i.strike(verb, r, f, body)
	stored := refused == nil && at(i.result, "metadata", "labels", label) == value
	for tries := 0; ; tries++ {
		_, err := i.owner.create(i, "v1/pods", i.namespace, podCarrier(i, i.bad, false))
		switch {
		case err == nil:
			return nil
		case refused != nil:
			return refused
		case !stored || tries == 50: // webhooks select by their cache of namespaces
			return err
		}
		<-time.After(100 * time.Millisecond)
	}
}

// gatekeeperAttacks write objects of Gatekeeper's kinds into the owner's namespace,
// and then create a Pod with the image.
func gatekeeperAttacks(requests []attacksurface.Request) []attack {
	var all []attack
	for _, w := range requests {
		r := target(w.Target())
		if !slices.ContainsFunc(w.Carries, func(p attacksurface.Field) bool { return p.Content == attacksurface.Policy }) {
			continue
		}
		f := asJSON
		if w.Verb == "patch" {
			f = merge
		}
		all = append(all, attack{name: string(r) + " " + w.Verb, alone: w.Kind == "Config", run: func(i *intruder) error {
			o := of(w.GroupVersion.String(), w.Kind, i, nil)
			switch w.Kind {
			case "Config": // Gatekeeper's own has this name
				o["metadata"] = object{"name": "config"}
				o["spec"] = object{"match": []object{{"excludedNamespaces": []string{"*"}, "processes": []string{"*"}}}}
			case "Connection":
				o["spec"] = object{"driver": "disk", "config": object{"path": "/tmp/" + i.name}}
			}
			if w.Verb != "create" {
				if _, err := i.prepare(r.base(), o); err != nil {
					return err
				}
				o["metadata"].(object)["labels"] = object{"changed": "yes"}
			}
			err := i.persist(func() error {
				if w.Verb == "update" {
					now, err := i.admin.get(i, r.base(), i.namespace, nameOf(o))
					if err != nil {
						return err
					}
					o["metadata"].(object)["resourceVersion"] = at(now, "metadata", "resourceVersion")
				}
				return i.strike(w.Verb, r, f, o)
			})
			if err != nil {
				return fmt.Errorf("striking: %w", err)
			}
			_, err = i.as(i.owner, "create", "v1/pods", asJSON, podCarrier(i, i.bad, false))
			return err
		}})
	}
	return all
}
