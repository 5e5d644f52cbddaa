// Package e2e has the end-to-end tests. They do what users do, on a real control
// plane with Gatekeeper and the provider, and with OCI emulated over its wire
// protocol.
//
// The tests use kubectl and kubectl oke-sign, and check what the API server then
// shows. They run inside a cluster of test/cluster, which make e2e starts. They
// bypass the API server only to break something: OCI through the emulator's control
// pages, and processes through the command cluster.
//
// Each test has a separate namespace, with constraints that match only this namespace,
// and with separate images and keys. So tests run in parallel. Tests that break shared
// parts are not parallel, and run first, one after another.
//
// TestAttackSurface tries every request that could run an unsigned image, as
// discovery lists them. Its log lists each attack with its outcome, and what was not
// tried. Read attacksurface_test.go first; carriers_test.go and attacks_test.go have
// the attacks.
package e2e
