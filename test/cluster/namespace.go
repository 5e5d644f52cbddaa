package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// namespaces is what a cluster has of its own. Who is not root becomes root of a
// user namespace, which is all the rest needs.
func namespaces() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// settle makes new namespaces habitable: /proc shows their processes, the loopback
// device is up and owns the addresses of Pods, and names are looked up in hosts.
func settle(hosts string) error {
	if os.Getpid() != 1 {
		return errors.New("not the first process of a namespace")
	}
	for _, m := range []struct {
		what, where, kind string
		flags             uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE}, // nothing mounted from here on is seen outside
		{"proc", "/proc", "proc", 0},
		{hosts, "/etc/hosts", "", unix.MS_BIND},
	} {
		if err := unix.Mount(m.what, m.where, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.what, m.where, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	// 127.0.0.0/8 is the machine's own anyway. An Endpoint may not be in it, so
	// Pods have other addresses.
	_, pods, err := net.ParseCIDR(podNetwork)
	if err != nil {
		return err
	}
	route := netlink.Route{LinkIndex: lo.Attrs().Index, Dst: pods, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
	if err := netlink.RouteAdd(&route); err != nil {
		return fmt.Errorf("route to Pods: %w", err)
	}
	return nil
}

// FindProject is the folder of the project that dir lies in.
func FindProject(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "test", "cluster", "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not in a checkout of oke-sign", dir)
		}
	}
}
