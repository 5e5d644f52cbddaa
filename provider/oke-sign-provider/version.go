package main

import "runtime/debug"

// version is set by the linker for a release; nothing else writes to it.
var version string

// build returns the version that the linker set, or the one that the go command
// recorded.
func build() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
