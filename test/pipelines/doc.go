// Package pipelines runs the pipelines of docs/ci unchanged. It reads their steps
// from the files, fills in the names, and runs the steps in a shell against an
// emulated OCI. Each step gets the environment that its service gives to jobs.
//
// The plugin is the real program. It signs in, pushes, signs and checks over OCI's
// wire protocol. Two parts are simulated, because no test can have them: the release
// page of the plugin, and docker. The simulated docker packs and pushes without a
// daemon.
package pipelines
