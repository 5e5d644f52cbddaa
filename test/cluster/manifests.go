package cluster

import "embed"

// manifests holds the objects of a new cluster: Nodes that kwok simulates, values for
// Gatekeeper's chart that only concern this machine, and the provider.
//
//go:embed manifests
var manifests embed.FS
