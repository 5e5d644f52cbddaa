// Package e2e holds the end-to-end tests: what users do, on a real control plane
// with Gatekeeper, the provider and OCI emulated over its wire protocol.
//
// They act as users do, with kubectl and kubectl oke-sign, and judge by what the
// API server then shows. They run inside a cluster of test/cluster, which make e2e
// starts for them, and look behind its API server only to break something: OCI
// through the emulator's own pages, processes through the command cluster.
//
// Each test has a namespace, constraints that match it alone, and images and keys
// of its own, so that tests run beside each other. Those that break what all share
// are not parallel, and so run first, one after another.
//
// TestAttackSurface tries every way to run an unsigned image that discovery shows. Its log
// lists each attack with its outcome, and what was not tried: attacksurface_test.go begins the
// story, carriers_test.go and attacks_test.go hold the attacks.
package e2e
