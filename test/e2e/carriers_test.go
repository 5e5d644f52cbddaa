package e2e_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/oke-sign/oke-sign/test/attacksurface"
)

// carrier is a resource whose objects lead to Pods. Its attacks follow from the
// requests that discovery lists.
type carrier struct {
	target target
	// object returns an object with that image. At rest it creates no Pod, if that is
	// possible.
	object   func(i *intruder, image string, atRest bool) object
	metadata []string          // fields that lead to the metadata of the Pod
	stops    map[string]string // attack.stops by verb, or by form of a change
	// alone says that its controller does not run here. Then the API server must not
	// store the image.
	alone bool
	// stored reports whether the API server stored what was sent; nil means the image.
	stored func(i *intruder, o object) bool
}

// stop returns attack.stops for a request.
func (c carrier) stop(w attacksurface.Request, f form) string {
	if c.alone && f == strategic {
		return "unknown format"
	}
	if w.Subresource == "status" || w.Subresource == "resize" {
		return inert // Kubernetes only stores the status, or the resources
	}
	return cmp.Or(c.stops[string(f)], c.stops[w.Verb])
}

// template returns a Pod template with one container.
func template(i *intruder, image string, more object) object {
	spec := object{"containers": []object{{"name": "main", "image": image}}}
	maps.Copy(spec, more)
	return object{"metadata": object{"labels": object{"app": i.name}}, "spec": spec}
}

func selector(i *intruder) object { return object{"matchLabels": object{"app": i.name}} }

func of(version, kind string, i *intruder, more object) object {
	o := object{"apiVersion": version, "kind": kind, "metadata": object{"name": i.name}}
	maps.Copy(o, more)
	return o
}

// count returns the number of replicas.
func count(atRest bool) int {
	if atRest {
		return 0
	}
	return 1
}

// scalable returns a constructor of workloads in group apps that have replicas.
func scalable(kind string) func(*intruder, string, bool) object {
	return func(i *intruder, image string, atRest bool) object {
		return of("apps/v1", kind, i, object{"spec": object{"replicas": count(atRest), "selector": selector(i), "template": template(i, image, nil)}})
	}
}

// carriers lists the kinds of Kubernetes, and the kinds of other projects that the
// policies read.
var carriers = []carrier{
	{target: "v1/pods", object: podCarrier, metadata: []string{"metadata"}},
	{target: "v1/podtemplates", metadata: []string{"template", "metadata"}, object: func(i *intruder, image string, _ bool) object {
		return of("v1", "PodTemplate", i, object{"template": template(i, image, nil)})
	}, stops: map[string]string{"create": inert, "update": inert, "patch": inert}},
	{target: "v1/replicationcontrollers", metadata: templateMeta, object: func(i *intruder, image string, atRest bool) object {
		return of("v1", "ReplicationController", i, object{"spec": object{"replicas": count(atRest), "selector": object{"app": i.name}, "template": template(i, image, nil)}})
	}},
	{target: "apps/v1/deployments", metadata: templateMeta, object: scalable("Deployment")},
	{target: "apps/v1/replicasets", metadata: templateMeta, object: scalable("ReplicaSet")},
	{target: "apps/v1/statefulsets", metadata: templateMeta, object: scalable("StatefulSet")},
	{target: "apps/v1/daemonsets", metadata: templateMeta, object: func(i *intruder, image string, atRest bool) object {
		node := "node-0"
		if atRest {
			node = "none"
		}
		where := object{"nodeSelector": object{"kubernetes.io/hostname": node}}
		return of("apps/v1", "DaemonSet", i, object{"spec": object{"selector": selector(i), "template": template(i, image, where)}})
	}},
	{target: "apps/v1/controllerrevisions", metadata: []string{"data", "spec", "template", "metadata"}, object: func(i *intruder, image string, _ bool) object {
		whole := template(i, image, nil)
		whole["$patch"] = "replace" // as its controller writes it
		return of("apps/v1", "ControllerRevision", i, object{"revision": 1, "data": object{"spec": object{"template": whole}}})
	}, stops: map[string]string{"create": inert, "update": "data", "patch": "data", string(strategic): "RawExtension"}},
	{target: "batch/v1/jobs", metadata: templateMeta, object: func(i *intruder, image string, atRest bool) object {
		return of("batch/v1", "Job", i, object{"spec": object{"suspend": atRest, "template": template(i, image, never)}})
	}, stops: map[string]string{"update": "field is immutable", "patch": "field is immutable"}},
	{target: "batch/v1/cronjobs", metadata: []string{"spec", "jobTemplate", "spec", "template", "metadata"}, object: func(i *intruder, image string, atRest bool) object {
		return of("batch/v1", "CronJob", i, object{"spec": object{
			"suspend": atRest, "schedule": "* * * * *",
			"jobTemplate": object{"spec": object{"template": template(i, image, never)}},
		}})
	}},
	{target: "argoproj.io/v1alpha1/rollouts", metadata: templateMeta, alone: true, object: func(i *intruder, image string, _ bool) object {
		return of("argoproj.io/v1alpha1", "Rollout", i, object{"spec": object{"selector": selector(i), "template": template(i, image, nil)}})
	}},
	{target: "serving.knative.dev/v1/services", metadata: templateMeta, alone: true, object: func(i *intruder, image string, _ bool) object {
		return of("serving.knative.dev/v1", "Service", i, object{"spec": object{"template": template(i, image, nil)}})
	}},
	{target: "jobset.x-k8s.io/v1alpha2/jobsets", alone: true, metadata: nil, object: func(i *intruder, image string, _ bool) object {
		return of("jobset.x-k8s.io/v1alpha2", "JobSet", i, object{"spec": object{"replicatedJobs": []object{
			{"name": "main", "template": object{"spec": object{"template": template(i, image, never)}}},
		}}})
	}},
	{target: "resource.k8s.io/v1/resourceclaims", object: func(i *intruder, image string, _ bool) object {
		return of("resource.k8s.io/v1", "ResourceClaim", i, object{"spec": claim(i, image)})
	}, stops: map[string]string{"create": inert, "update": "field is immutable", "patch": "field is immutable"}},
	{target: "resource.k8s.io/v1/resourceclaimtemplates", object: func(i *intruder, image string, _ bool) object {
		return of("resource.k8s.io/v1", "ResourceClaimTemplate", i, object{"spec": object{"spec": claim(i, image)}})
	}, stops: map[string]string{"create": inert, "update": "field is immutable", "patch": "field is immutable"}},
}

var (
	templateMeta = []string{"spec", "template", "metadata"}
	never        = object{"restartPolicy": "Never"}
)

// podCarrier returns a Pod that mounts no token, so that a patch can replace lists.
func podCarrier(i *intruder, image string, _ bool) object {
	return object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": i.name, "labels": object{"app": i.name}},
		"spec": object{"automountServiceAccountToken": false, "containers": []object{{"name": "main", "image": image}}},
	}
}

// claim returns a request for a device, with a Pod template for the device's driver.
func claim(i *intruder, image string) object {
	return object{"devices": object{
		"requests": []object{{"name": "device", "exactly": object{"deviceClassName": "example.com"}}},
		"config":   []object{{"opaque": object{"driver": "example.com", "parameters": object{"spec": object{"template": template(i, image, nil)}}}}},
	}}
}

// attacks derives attacks from the requests of the carrier's resource.
func (c carrier) attacks(requests []attacksurface.Request) []attack {
	var all []attack
	for _, w := range requests {
		if target(w.Target()).base() != c.target || len(w.Carries) == 0 || w.Subresource == "scale" {
			continue
		}
		switch w.Verb {
		case "create":
			if w.Subresource == "" {
				all = append(all, c.creations(w)...)
			}
		case "update":
			all = append(all, c.change(w, asJSON))
		case "patch":
			for _, f := range []form{merge, strategic, jsonPatch, apply} {
				all = append(all, c.change(w, f))
			}
			if c.metadata != nil && w.Subresource == "" {
				all = append(all, c.changeUnderBreakGlass(w))
			}
		}
	}
	return all
}

// creations create an object with the image by digest, by tag, under break-glass, and
// by server-side apply.
func (c carrier) creations(w attacksurface.Request) []attack {
	r := target(w.Target())
	stop := c.stop(w, asJSON)
	with := func(how string, f form, object func(*intruder) object) attack {
		return attack{name: string(r) + " created " + how, stops: stop, run: func(i *intruder) error {
			verb := "create"
			if f == apply {
				verb = "patch"
			}
			return c.landed(i, i.strike(verb, r, f, object(i)))
		}}
	}
	all := []attack{
		with("by digest", asJSON, func(i *intruder) object { return c.object(i, i.bad, false) }),
		with("by server-side apply", apply, func(i *intruder) object { return c.object(i, i.bad, false) }),
	}
	if c.stored == nil {
		all = append(all, with("by tag", asJSON, func(i *intruder) object { return c.object(i, i.tagged, false) }))
	}
	if c.metadata != nil {
		all = append(all, with("under break-glass", asJSON, func(i *intruder) object { return c.underBreakGlass(i, i.bad) }))
	}
	return all
}

// underBreakGlass returns an object whose Pods are under break-glass.
func (c carrier) underBreakGlass(i *intruder, image string) object {
	o := c.object(i, image, false)
	meta := at(o, c.metadata...)
	if meta == nil {
		panic(fmt.Sprintf("%s: no %s", c.target, c.metadata))
	}
	meta.(object)["annotations"] = oncallBreakGlass()
	return o
}

// oncallBreakGlass returns break-glass annotations that the policy accepts from oncall.
func oncallBreakGlass() object { return emergency(inAnHour) }

// change sets the image in an object that is at rest with a signed image.
func (c carrier) change(w attacksurface.Request, f form) attack {
	r := target(w.Target())
	return attack{name: string(r) + " changed by " + f.String(), stops: c.stop(w, f), run: func(i *intruder) error {
		rest := c.object(i, i.good, true)
		if r.sub() == "resize" {
			rest["spec"].(object)["schedulerName"] = "nobody" // no Node here can resize Pods
		}
		if _, err := i.prepare(c.target, rest); err != nil {
			return err
		}
		o := c.object(i, i.bad, false)
		if r.sub() == "ephemeralcontainers" {
			o["spec"].(object)["ephemeralContainers"] = []object{{"name": "debugger", "image": i.bad}}
			o["spec"].(object)["containers"] = []object{{"name": "main", "image": i.good}}
		}
		return c.landed(i, i.persist(func() error {
			body, err := c.as(i, f, o)
			if err != nil {
				return err
			}
			return i.strike(w.Verb, r, f, body)
		}))
	}}
}

// changeUnderBreakGlass puts an object with a signed image under break-glass, and sets
// the image in the same request.
func (c carrier) changeUnderBreakGlass(w attacksurface.Request) attack {
	r := target(w.Target())
	return attack{name: string(r) + " changed under break-glass", stops: c.stop(w, merge), run: func(i *intruder) error {
		if _, err := i.prepare(c.target, c.object(i, i.good, true)); err != nil {
			return err
		}
		o := c.underBreakGlass(i, i.bad)
		delete(o["metadata"].(object), "name")
		return c.landed(i, i.strike("patch", r, merge, o))
	}}
}

// as returns the body that changes an object, in the form of the request.
func (c carrier) as(i *intruder, f form, o object) (any, error) {
	change := object{}
	for name, value := range o {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata"}, name) {
			change[name] = value
		}
	}
	switch f {
	case asJSON:
		now, err := i.now(c.target)
		if err != nil {
			return nil, err
		}
		o["metadata"].(object)["resourceVersion"] = at(now, "metadata", "resourceVersion")
		if c.target == "v1/pods" { // most of a Pod cannot change
			spec := now["spec"].(object)
			maps.Copy(spec, o["spec"].(object))
			o["spec"] = spec
		}
		return o, nil
	case apply:
		return o, nil
	case jsonPatch:
		var operations []object
		for name, value := range change {
			fields, isObject := value.(object)
			if !isObject {
				operations = append(operations, object{"op": "add", "path": "/" + name, "value": value})
			}
			for field, v := range fields {
				operations = append(operations, object{"op": "add", "path": "/" + name + "/" + field, "value": v})
			}
		}
		return operations, nil
	}
	return change, nil
}

// landed records whether the API server stored the image.
func (c carrier) landed(i *intruder, err error) error {
	if err != nil {
		return err
	}
	result := maps.Clone(i.result)
	delete(result, "status")
	in := holds(result, i.bad) || holds(result, i.tagged)
	if c.stored != nil {
		in = c.stored(i, result)
	}
	i.landed = c.alone && in
	i.inert = !in
	return nil
}
