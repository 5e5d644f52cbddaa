// Package pipelines runs the pipelines of docs/ci as they stand: it reads their steps
// out of the files, fills in the names, and runs them in a shell against an emulated
// OCI, with the environment that each service gives to its jobs.
//
// The plugin is the real program, and signs in, pushes, signs and checks over OCI's
// wire protocol. Played are what no test can have: the release page that the plugin
// is downloaded from, and docker, which here packs and pushes without a daemon.
package pipelines
