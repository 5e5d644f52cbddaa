package charts_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// The objects of the chart agree on ports, labels and volumes.
func TestObjectsAgree(t *testing.T) {
	cases(t, func(t *testing.T, chart, values string) {
		if chart != "oke-sign" {
			t.Skip("no Pods in it")
		}
		list := objects(t, render(t, chart, values))
		template := find[appsv1.Deployment](t, list, "Deployment").Spec.Template
		container := template.Spec.Containers[0]
		ports := map[string]int32{}
		for _, p := range container.Ports {
			ports[p.Name] = p.ContainerPort
		}
		for flag, port := range map[string]string{"--addr": "https", "--health-addr": "health"} {
			if want := flag + "=:" + strconv.Itoa(int(ports[port])); !slices.Contains(container.Args, want) {
				t.Errorf("the container has port %s at %d, but no argument %s in %q", port, ports[port], want, container.Args)
			}
		}
		service := find[corev1.Service](t, list, "Service")
		for _, p := range service.Spec.Ports {
			if ports[p.TargetPort.StrVal] == 0 {
				t.Errorf("the Service targets port %s, which the container does not have", p.TargetPort.String())
			}
		}
		network := find[networkingv1.NetworkPolicy](t, list, "NetworkPolicy")
		for i, rule := range network.Spec.Ingress {
			if len(rule.From) == 0 {
				t.Errorf("ingress rule %d admits everybody", i)
			}
			for _, p := range rule.Ports {
				if ports[p.Port.StrVal] == 0 {
					t.Errorf("ingress rule %d names port %s, which the container does not have", i, p.Port.String())
				}
			}
			gatekeeper := i == 0
			if onlyHTTPS := len(rule.Ports) == 1 && rule.Ports[0].Port.StrVal == "https"; gatekeeper != onlyHTTPS {
				t.Errorf("ingress rule %d: %v", i, rule.Ports)
			}
		}
		selectors := map[string]map[string]string{
			"Service":             service.Spec.Selector,
			"NetworkPolicy":       network.Spec.PodSelector.MatchLabels,
			"PodDisruptionBudget": find[policyv1.PodDisruptionBudget](t, list, "PodDisruptionBudget").Spec.Selector.MatchLabels,
			"Deployment":          find[appsv1.Deployment](t, list, "Deployment").Spec.Selector.MatchLabels,
		}
		for kind, selector := range selectors {
			if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(labels.Set(template.Labels)) {
				t.Errorf("%s selects %v, but the Pods have %v", kind, selector, template.Labels)
			}
		}
		mounted := map[string]bool{}
		for _, v := range template.Spec.Volumes {
			mounted[v.Name] = false
		}
		for _, m := range container.VolumeMounts {
			if _, found := mounted[m.Name]; !found {
				t.Errorf("%s is mounted, but is not a volume", m.Name)
			}
			mounted[m.Name] = true
		}
		for name, is := range mounted {
			if !is {
				t.Errorf("volume %s is not mounted", name)
			}
		}
	})
}

// The Pods meet the standard "restricted" of Kubernetes, and have a read-only root.
func TestPodsAreRestricted(t *testing.T) {
	cases(t, func(t *testing.T, chart, values string) {
		if chart != "oke-sign" {
			t.Skip("no Pods in it")
		}
		pod := find[appsv1.Deployment](t, objects(t, render(t, chart, values)), "Deployment").Spec.Template.Spec
		container := pod.Containers[0].SecurityContext
		for what, holds := range map[string]bool{
			"not root":             *pod.SecurityContext.RunAsNonRoot && *pod.SecurityContext.RunAsUser > 0,
			"seccomp":              pod.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
			"no more privileges":   !*container.AllowPrivilegeEscalation && container.Privileged == nil,
			"no capabilities":      slices.Equal(container.Capabilities.Drop, []corev1.Capability{"ALL"}) && container.Capabilities.Add == nil,
			"read-only root":       *container.ReadOnlyRootFilesystem,
			"no host namespaces":   !pod.HostNetwork && !pod.HostPID && !pod.HostIPC,
			"one container":        len(pod.Containers) == 1 && pod.InitContainers == nil,
			"no CPU limit":         pod.Containers[0].Resources.Limits.Cpu().IsZero(),
			"memory is limited":    !pod.Containers[0].Resources.Limits.Memory().IsZero(),
			"time to finish calls": *pod.TerminationGracePeriodSeconds >= 10,
		} {
			if !holds {
				t.Errorf("not true: %s", what)
			}
		}
	})
}

// The rights are those that README.md lists, each limited to objects by name.
func TestRights(t *testing.T) {
	for values, want := range map[string][]string{
		"default": {
			"secrets oke-sign-tls get,update",
			"providers oke-sign,oke-sign-scans,oke-sign-digests get,create,patch",
			"validatingwebhookconfigurations gatekeeper-validating-webhook-configuration get,list,watch",
		},
		"certificate-from-files": nil,
	} {
		var got []string
		list := objects(t, render(t, "oke-sign", "testdata/oke-sign/"+values+".yaml"))
		for _, o := range list {
			rules, _ := o.Object["rules"].([]any)
			for _, rule := range rules {
				texts := func(field string) string {
					var list []string
					values, _ := rule.(map[string]any)[field].([]any)
					for _, v := range values {
						list = append(list, v.(string))
					}
					return strings.Join(list, ",")
				}
				got = append(got, texts("resources")+" "+texts("resourceNames")+" "+texts("verbs"))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", values, got, want)
		}
		if mounts := *find[appsv1.Deployment](t, list, "Deployment").Spec.Template.Spec.AutomountServiceAccountToken; mounts != (want != nil) {
			t.Errorf("%s: the service account's token is mounted: %v", values, mounts)
		}
	}
}

// Helm and GitOps tools apply objects first and delete removed objects later, or never. If the
// chart makes the Provider objects, old replicas must lose the right to write them before. So
// the ClusterRole stays, without rules, and comes first.
func TestProviderObjectsHaveOneWriter(t *testing.T) {
	cases(t, func(t *testing.T, chart, values string) {
		if chart != "oke-sign" {
			t.Skip("no Provider objects in it")
		}
		list := objects(t, render(t, chart, values))
		made, role := 0, -1
		for n, o := range list {
			switch o.GetKind() {
			case "Provider":
				if role < 0 {
					t.Errorf("Provider %s comes before the ClusterRole", o.GetName())
				}
				made++
			case "ClusterRole":
				role = n
			}
		}
		if role < 0 {
			t.Fatal("there is no ClusterRole")
		}
		allowed := false
		for _, rule := range find[rbacv1.ClusterRole](t, list, "ClusterRole").Rules {
			allowed = allowed || slices.Contains(rule.Resources, "providers")
		}
		if allowed == (made > 0) {
			t.Errorf("the chart makes %d Provider objects, and the provider may write them: %v", made, allowed)
		}
	})
}
