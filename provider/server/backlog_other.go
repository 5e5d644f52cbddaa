//go:build !unix

package server

import "net"

// backlogged reports false: there is no way to ask here.
func backlogged(net.Listener) bool { return false }
