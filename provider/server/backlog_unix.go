//go:build unix

package server

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// backlogged reports whether the kernel holds a connection that nobody accepted yet.
func backlogged(l net.Listener) bool {
	raw, ok := l.(syscall.Conn)
	if !ok {
		return false
	}
	conn, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	ready := 0
	_ = conn.Control(func(fd uintptr) { // fails on a closed listener, which has no backlog
		ready, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // descriptors are small
	})
	return ready > 0
}
