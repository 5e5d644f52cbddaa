package cluster

import "embed"

// manifests are what is applied to a new cluster: Nodes that kwok pretends, values
// for Gatekeeper's chart that concern this machine only, and the provider.
//
//go:embed manifests
var manifests embed.FS
