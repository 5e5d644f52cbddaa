// Package policies embeds the project's ConstraintTemplates for Gatekeeper. make generate writes
// the templates from the sources in this folder, which also has their tests and samples.
//
// Templates asks the external data provider. Recorded reads recorded verdicts instead, and must
// never be installed in a cluster.
package policies

//go:generate go run ./internal/generate .

import "embed"

// Kinds of constraints that the templates define.
const (
	SignedImages  = "OKESignedImages"
	ImageDigests  = "OKEImageDigests"
	BreakGlass    = "OKEBreakGlass"
	ScannedImages = "OKEScannedImages"
)

// Kinds returns the kinds of all templates.
func Kinds() []string { return []string{SignedImages, ImageDigests, BreakGlass, ScannedImages} }

// Templates has <kind in lower case>/template.yaml for every kind.
//
//go:embed okesignedimages/template.yaml okeimagedigests/template.yaml okebreakglass/template.yaml okescannedimages/template.yaml
var Templates embed.FS

// Recorded has <kind in lower case>/recorded/template.yaml for every kind. These are the same
// policies with verdicts from a ConfigMap. For an admission request with a user, they deny every
// image that needs a verdict.
//
//go:embed okesignedimages/recorded/template.yaml okeimagedigests/recorded/template.yaml okebreakglass/recorded/template.yaml okescannedimages/recorded/template.yaml
var Recorded embed.FS

// NamespaceLabels is the ValidatingAdmissionPolicy that guards the labels of namespaces. The
// chart oke-sign writes its exempt namespaces into the variable exempt.
//
//go:embed namespacelabels/policy.yaml
var NamespaceLabels []byte
