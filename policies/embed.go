// Package policies holds the project's ConstraintTemplates for Gatekeeper, as
// they are installed in a cluster. Their sources, tests and samples lie beside
// it; what is embedded is generated from them by make generate.
//
// The templates ask the external data provider. Those that read recorded
// verdicts instead are embedded apart, since they must never reach a cluster.
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

// Kinds returns all of them.
func Kinds() []string { return []string{SignedImages, ImageDigests, BreakGlass, ScannedImages} }

// Templates holds <kind in lower case>/template.yaml for every kind.
//
//go:embed okesignedimages/template.yaml okeimagedigests/template.yaml okebreakglass/template.yaml okescannedimages/template.yaml
var Templates embed.FS

// Recorded holds <kind in lower case>/recorded/template.yaml for every kind:
// the same policies, which find verdicts in a ConfigMap and admit nothing that
// needs one in an admission request with a user.
//
//go:embed okesignedimages/recorded/template.yaml okeimagedigests/recorded/template.yaml okebreakglass/recorded/template.yaml okescannedimages/recorded/template.yaml
var Recorded embed.FS

// NamespaceLabels is the ValidatingAdmissionPolicy that guards the labels of
// namespaces. The chart oke-sign puts its exempt namespaces into the variable
// exempt.
//
//go:embed namespacelabels/policy.yaml
var NamespaceLabels []byte
