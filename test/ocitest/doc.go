// Package ocitest emulates the parts of Oracle Cloud Infrastructure that image signing
// uses, over their real wire protocol, for unmodified clients.
//
// A [Cloud] is an HTTP CONNECT proxy on loopback. The proxy terminates TLS for OCI's
// real host names, with a certificate authority of its making. Two environment
// variables lead a client to the proxy: HTTPS_PROXY and SSL_CERT_FILE (see
// [Cloud.Env]). Production code therefore has no hook for tests. The proxy serves
// the Artifacts, Key Management, Identity and Object Storage APIs, OCI Registry, and
// the image policy of Container Engine's clusters. It checks request signatures and
// permissions. Keys and signatures are real.
//
// Each behaviour of OCI that Oracle does not document is a switch ([Switches]). Two
// presets are opposite in all of them. README.md says how to confirm a switch.
//
// The emulator trusts every program that reaches its port, which is on loopback.
// Private keys are in memory and, unencrypted, in its state file, so do not protect
// anything of value with it. It never dials out. For other hosts it answers as a
// proxy answers for an unknown name.
package ocitest
