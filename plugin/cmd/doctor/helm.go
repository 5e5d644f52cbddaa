package doctor

import (
	"cmp"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/oke-sign/oke-sign/plugin/helm"
)

// helmRelease is the annotation of an object that a release of helm made.
const helmRelease = "meta.helm.sh/release-name"

// upgradeGatekeeper returns the command that sets a value of Gatekeeper's chart, in the
// release and the version that run.
func (f *facts) upgradeGatekeeper(value string) string {
	running := ""
	for _, d := range f.operations("webhook") {
		for _, c := range d.Spec.Template.Spec.Containers {
			if v, err := version.ParseSemantic(helm.TagOf(c.Image)); err == nil {
				running = v.String()
			}
		}
	}
	return f.helmUpgrade(running) + " --reuse-values --set " + value
}

// helmUpgrade returns the command that upgrades Gatekeeper to a version of its chart.
func (f *facts) helmUpgrade(to string) string {
	release := ""
	for _, d := range f.gatekeeper.is {
		release = cmp.Or(release, d.Annotations[helmRelease])
	}
	return helm.Upgrade(cmp.Or(release, "gatekeeper"), f.gatekeeperNamespace(), to)
}
