package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// childName is what the program calls itself while it prepares a container.
const childName = "oke-sign-container"

// root is what a child is told on its standard input.
type root struct {
	Parent   int      // process that must live
	Dir      string   // empty folder that the root is built at
	Path     string   // of the program in the root
	Argv     []string // with the command's name
	Env      []string
	WorkDir  string
	Image    []mount // its files, the program among them
	Mounts   []mount // volumes
	ReadOnly bool    // the root; not what is mounted in it

	// Identity to take, unless it is nil.
	Identity        *identity
	NoNewPrivileges bool
}

type mount struct {
	Source, Target string
	ReadOnly       bool
}

type identity struct {
	User, Group int
	Groups      []int
}

// Child has to be called before anything else by the program that runs a Kubelet.
// If the program was started by the Kubelet to become a container, Child becomes
// it and does not return, unless it fails. Otherwise it does nothing.
func Child(argv0 string) error {
	if argv0 != childName {
		return nil
	}
	// Namespaces, identity and the signal of a dying parent belong to a thread; the
	// one that calls exec is the one that stays.
	runtime.LockOSThread()
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var r root
	if err := json.Unmarshal(in, &r); err != nil {
		return fmt.Errorf("what to run: %w", err)
	}
	if err := r.enter(); err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", r.Path, unix.Exec(r.Path, r.Argv, r.Env))
}

// enter makes the root and makes it the process's own.
func (r *root) enter() error {
	unix.Umask(0o022)
	// From here on nothing that is mounted is seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", r.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount a root: %w", err)
	}
	for _, m := range r.mounts() {
		if err := m.in(r.Dir); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.Source, m.Target, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(r.Dir, "tmp"), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(r.Dir, "tmp"), 0o777|fs.ModeSticky); err != nil {
		return err
	}
	if err := unix.Chdir(r.Dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil { // the old root lies on top of the new one now
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	if r.ReadOnly {
		if err := readOnly("/", 0); err != nil {
			return err
		}
	}
	if err := unix.Chdir(r.WorkDir); err != nil {
		return fmt.Errorf("working directory %s: %w", r.WorkDir, err)
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := unix.Dup3(null, 0, 0); err != nil {
		return err
	}
	// What else is open here is not the container's business.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close files: %w", err)
	}
	return r.become()
}

// mounts is all that lies in the root, outer things first.
func (r *root) mounts() []mount {
	all := append([]mount{{Source: "/proc", Target: "/proc", ReadOnly: true}}, r.Image...)
	for _, device := range []string{"null", "zero", "full", "random", "urandom"} {
		all = append(all, mount{Source: "/dev/" + device, Target: "/dev/" + device})
	}
	all = append(all, machines("/etc/hosts", "/etc/resolv.conf")...)
	all = append(all, r.Mounts...)
	slices.SortStableFunc(all, func(a, b mount) int {
		return strings.Count(filepath.Clean(a.Target), "/") - strings.Count(filepath.Clean(b.Target), "/")
	})
	return all
}

// machines are files and folders of this machine, if there are such.
func machines(paths ...string) (all []mount) {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			all = append(all, mount{Source: path, Target: path, ReadOnly: true})
		}
	}
	return all
}

// in mounts m below the folder.
func (m mount) in(dir string) error {
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	target := filepath.Join(dir, filepath.Clean("/"+m.Target))
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var f *os.File
		if f, err = os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if m.ReadOnly {
		return readOnly(target, unix.AT_RECURSIVE)
	}
	return nil
}

func readOnly(path string, flags uint) error {
	err := unix.MountSetattr(unix.AT_FDCWD, path, flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err != nil {
		return fmt.Errorf("make %s read-only: %w", path, err)
	}
	return nil
}

// become takes the identity that the container wants.
func (r *root) become() error {
	if id := r.Identity; id != nil {
		if err := unix.Setgroups(id.Groups); err != nil {
			return fmt.Errorf("set groups: %w", err)
		}
		if err := unix.Setresgid(id.Group, id.Group, id.Group); err != nil {
			return fmt.Errorf("set group: %w", err)
		}
		if err := unix.Setresuid(id.User, id.User, id.User); err != nil {
			return fmt.Errorf("set user: %w", err)
		}
	}
	if r.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	// A change of identity makes the kernel forget it. A parent that died in between
	// is no parent any more.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != r.Parent {
		return errors.New("the kubelet has ended")
	}
	return nil
}

// users says whether there are others than root. In a user namespace that an
// ordinary user made there are not, and nobody may leave a group there.
func users() (bool, error) {
	b, err := os.ReadFile("/proc/self/setgroups")
	return strings.TrimSpace(string(b)) == "allow", err
}
