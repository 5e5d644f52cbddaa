// Package ocitest is Oracle Cloud Infrastructure in a box: the parts that image
// signing touches, over their real wire protocol, for clients that do not know.
//
// A [Cloud] is an HTTP CONNECT proxy on loopback that terminates TLS for OCI's
// real host names under a certificate authority of its own. A client is pointed
// at it from outside only, through HTTPS_PROXY and SSL_CERT_FILE (see
// [Cloud.Env]), so production code needs no hook for tests and has none. Behind
// it stand the Artifacts, Key Management, Identity and Object Storage APIs, of
// Container Engine what there is to a cluster's image policy, and OCI Registry
// itself. Request signatures and permissions are checked, keys are real keys and
// signatures real signatures.
//
// What nobody outside Oracle knows about OCI is a switch ([Switches]), with two
// presets opposite in everything, and README.md says how to find out.
//
// It trusts whoever can reach its port, which is loopback, and it keeps private
// keys in memory and in its state file in the clear: nothing in here may guard
// anything of value. It never dials out, and answers for hosts that it does not
// play as a proxy does when a name does not resolve.
package ocitest
