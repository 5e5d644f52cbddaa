// Package namespace gives a process a machine of its own: network, process and
// mount namespaces that nothing outside can be reached from, and that end with
// their first process.
package namespace

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Pods is a network whose addresses are all the machine's own, as those of
// 127.0.0.0/8 are anyway: an Endpoint may not be in that one.
const Pods = "10.244.0.0/16"

// New is what a process is started with to be the first of new namespaces. Who is
// not root becomes root of a user namespace, which is all the rest needs.
func New() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// Settle makes new namespaces habitable, called by their first process: mounts are
// not seen outside, /proc shows the processes that are there, and the loopback
// device is up and owns the addresses of Pods.
func Settle() error {
	if os.Getpid() != 1 {
		return errors.New("not the first process of a namespace")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts apart: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	_, pods, err := net.ParseCIDR(Pods)
	if err != nil {
		return err
	}
	route := netlink.Route{LinkIndex: lo.Attrs().Index, Dst: pods, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
	if err := netlink.RouteAdd(&route); err != nil {
		return fmt.Errorf("route to Pods: %w", err)
	}
	return nil
}
