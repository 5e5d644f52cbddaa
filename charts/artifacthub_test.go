package charts_test

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/oke-sign/oke-sign/policies"
)

// The annotations for Artifact Hub match the chart's contents. Artifact Hub silently omits an
// annotation that it cannot read.
func TestArtifactHub(t *testing.T) {
	type chart struct {
		Version     string
		AppVersion  string `yaml:"appVersion"`
		Annotations map[string]string
	}
	var provider, policy chart
	read(t, "oke-sign/Chart.yaml", &provider)
	read(t, "oke-sign-policy/Chart.yaml", &policy)
	if provider.Version != provider.AppVersion || policy.Version != provider.Version || policy.AppVersion != provider.Version {
		t.Errorf("the charts are released together but have different versions: %s and %s, %s and %s", provider.Version, provider.AppVersion, policy.Version, policy.AppVersion)
	}
	for name, c := range map[string]chart{"oke-sign": provider, "oke-sign-policy": policy} {
		part := func(of string, into any) {
			t.Helper()
			text, ok := c.Annotations["artifacthub.io/"+of]
			if !ok {
				t.Errorf("%s: no %s", name, of)
			}
			d := yaml.NewDecoder(strings.NewReader(text))
			d.KnownFields(true)
			if err := d.Decode(into); err != nil {
				t.Errorf("%s: %s: %v", name, of, err)
			}
		}
		var changes []struct{ Kind, Description string }
		part("changes", &changes)
		for _, change := range changes {
			if !slices.Contains([]string{"added", "changed", "deprecated", "removed", "fixed", "security"}, change.Kind) || change.Description == "" {
				t.Errorf("%s: change %+v", name, change)
			}
		}
		var links []struct{ Name, URL string }
		part("links", &links)
		var recommendations []struct{ URL string }
		part("recommendations", &recommendations)
		if got := c.Annotations["artifacthub.io/prerelease"]; got != map[bool]string{true: "true", false: "false"}[strings.Contains(c.Version, "-")] {
			t.Errorf("%s %s: prerelease is %s", name, c.Version, got)
		}
	}

	var images []struct{ Name, Image string }
	if err := yaml.Unmarshal([]byte(provider.Annotations["artifacthub.io/images"]), &images); err != nil {
		t.Fatal(err)
	}
	d := find[appsv1.Deployment](t, objects(t, render(t, "oke-sign", "", "--set", region)), "Deployment")
	if len(images) != 1 || images[0].Image != d.Spec.Template.Spec.Containers[0].Image {
		t.Errorf("the annotation has images %+v, but the Deployment runs %s", images, d.Spec.Template.Spec.Containers[0].Image)
	}

	var crds []struct {
		Kind, Version, Name, Description string
		DisplayName                      string `yaml:"displayName"`
	}
	if err := yaml.Unmarshal([]byte(provider.Annotations["artifacthub.io/crds"]), &crds); err != nil {
		t.Fatal(err)
	}
	want, got := map[string]string{}, map[string]string{}
	for _, kind := range policies.Kinds() {
		want[kind] = strings.ToLower(kind) + ".constraints.gatekeeper.sh"
	}
	for _, crd := range crds {
		got[crd.Kind] = crd.Name
		if crd.Version != "v1beta1" || crd.DisplayName == "" || crd.Description == "" {
			t.Errorf("%s: %+v", path.Base(crd.Name), crd)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kinds of constraints:\n%s", diff)
	}
}
