package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
)

// clusterTime is the time limit for asking a cluster for its versions.
const clusterTime = 5 * time.Second

// component is a part of oke-sign in a cluster, or a part that oke-sign needs there.
type component struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// clusterVersions are the versions of a cluster's parts. It omits missing parts. A part
// that could not be read has no version.
type clusterVersions struct {
	Kubernetes string      `json:"kubernetes,omitempty"`
	Provider   *component  `json:"provider,omitempty"`
	Gatekeeper *component  `json:"gatekeeper,omitempty"`
	Templates  []component `json:"templates"`
}

func (v *clusterVersions) components() []component {
	if v == nil {
		return nil
	}
	all := []component{{Name: "Kubernetes", Version: v.Kubernetes}}
	for _, c := range []struct {
		*component
		name string
	}{{v.Provider, "provider"}, {v.Gatekeeper, "Gatekeeper"}} {
		if c.component == nil {
			all = append(all, component{c.name, "none", ""})
		} else {
			all = append(all, *c.component)
		}
	}
	return append(all, v.Templates...)
}

// inCluster asks the cluster for its versions. If it fails, it also returns the
// versions that it could read.
func inCluster(ctx context.Context, s *connect.Session) (*clusterVersions, error) {
	client, err := s.Kube.Typed()
	if err != nil {
		return nil, err
	}
	objects, err := s.Kube.Objects()
	if err != nil {
		return nil, err
	}
	v := &clusterVersions{Templates: []component{}}
	// The typed client's method for this takes no context.
	var server struct{ GitVersion string }
	text, err := client.Discovery().RESTClient().Get().AbsPath("/version").DoRaw(ctx)
	if err == nil {
		err = json.Unmarshal(text, &server)
	}
	if err != nil {
		return nil, fmt.Errorf("asking the cluster for its version: %w", err)
	}
	v.Kubernetes = cli.Clip(server.GitVersion, 40)

	var failed error
	for next := ""; ; {
		list, err := client.AppsV1().Deployments("").List(ctx, metav1.ListOptions{Limit: 500, Continue: next})
		if err != nil {
			failed = fmt.Errorf("looking for the provider and for Gatekeeper: %w", err)
			if v.Provider == nil { // it may be installed
				v.Provider = &component{Name: "provider"}
			}
			if v.Gatekeeper == nil {
				v.Gatekeeper = &component{Name: "Gatekeeper"}
			}
			break
		}
		for _, d := range list.Items {
			v.note(d)
		}
		if next = list.Continue; next == "" {
			break
		}
	}
	resource := schema.GroupVersionResource{Group: "templates.gatekeeper.sh", Version: "v1", Resource: "constrainttemplates"}
	for i, kind := range policies.Kinds() {
		there, err := objects.Resource(resource).Get(ctx, strings.ToLower(kind), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			v.Templates = append(v.Templates, component{kind, "none", ""})
		case err != nil:
			for _, unknown := range policies.Kinds()[i:] {
				v.Templates = append(v.Templates, component{Name: unknown})
			}
			return v, errors.Join(failed, fmt.Errorf("reading the templates: %w", err))
		default:
			c, err := compareTemplate(kind, there)
			if err != nil {
				return v, err
			}
			v.Templates = append(v.Templates, c)
		}
	}
	return v, failed
}

// note records the versions of what a Deployment runs, from the tags of its images.
func (v *clusterVersions) note(d appsv1.Deployment) {
	for _, c := range d.Spec.Template.Spec.Containers {
		name, version := imageVersion(c.Image)
		found := &component{Version: version, Detail: d.Namespace + "/" + d.Name}
		switch {
		case name == "oke-sign-provider":
			if version == "" {
				found.Version = d.Labels["app.kubernetes.io/version"]
			}
			found.Name, v.Provider = "provider", found
		case name == "gatekeeper" && d.Name == "gatekeeper-controller-manager":
			found.Name, v.Gatekeeper = "Gatekeeper", found
		}
	}
}

// imageVersion returns the last part of an image's name, and its tag.
func imageVersion(ref string) (name, version string) {
	ref, _, _ = strings.Cut(ref, "@")
	name, version, _ = strings.Cut(ref[strings.LastIndexByte(ref, '/')+1:], ":")
	return name, version
}

const versionAnnotation = "metadata.gatekeeper.sh/version"

// compareTemplate compares a template of the cluster with the one of this build.
func compareTemplate(kind string, there *unstructured.Unstructured) (component, error) {
	text, err := policies.Templates.ReadFile(strings.ToLower(kind) + "/template.yaml")
	if err != nil {
		return component{}, err
	}
	own, err := manifest.Objects(text)
	if err != nil {
		return component{}, err
	}
	c := component{Name: kind, Version: there.GetAnnotations()[versionAnnotation]}
	mine := own[0].GetAnnotations()[versionAnnotation]
	code := func(o *unstructured.Unstructured) any {
		targets, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "targets")
		return targets
	}
	switch {
	case c.Version != mine:
		c.Detail = "this build has " + mine
	case !equality.Semantic.DeepEqual(code(there), code(own[0])):
		c.Detail = "its code is not that of this version"
	}
	return c, nil
}

// skew returns the versions that do not fit together, as messages.
func (v versions) skew() []string {
	var told []string
	if v.Cluster == nil {
		return nil
	}
	if p := v.Cluster.Provider; p != nil && p.Version != "" && p.Version != v.Version {
		told = append(told, fmt.Sprintf("the provider is %s, and this program %s: they may judge differently", p.Version, v.Version))
	}
	some := slices.ContainsFunc(v.Cluster.Templates, func(c component) bool { return c.Version != "none" && c != component{Name: c.Name} })
	for _, c := range v.Cluster.Templates {
		switch {
		case c.Version == "none" && some:
			told = append(told, fmt.Sprintf("template %s is not installed, and others are", c.Name))
		case c.Detail != "":
			told = append(told, fmt.Sprintf("template %s %s: %s", c.Name, c.Version, c.Detail))
		}
	}
	if some && v.Cluster.Gatekeeper == nil {
		told = append(told, "templates are installed, and no Gatekeeper was found to enforce them")
	}
	return told
}
