// Package namespace isolates a process in new network, process and mount namespaces.
// From inside, nothing outside can be reached over the network. The namespaces end with
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

// Pods is a network whose addresses all belong to the machine itself, like those of
// 127.0.0.0/8. Pods need their own network because an Endpoint may not have a loopback
// address.
const Pods = "10.244.0.0/16"

// New returns the attributes with which to start the first process of new namespaces.
// A user who is not root also gets a user namespace, in which the process is root.
func New() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// Settle prepares new namespaces. Their first process must call it. It hides mounts
// from outside, makes /proc show the processes inside, brings up the loopback device
// and gives it the addresses of Pods.
func Settle() error {
	if os.Getpid() != 1 {
		return errors.New("not the first process of a namespace")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
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
