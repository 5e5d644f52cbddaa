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

// childName is argv[0] of a process that prepares a container.
const childName = "oke-sign-container"

// root describes a container. A child process reads it from standard input.
type root struct {
	Parent   int      // PID of the kubelet; the child ends with it
	Dir      string   // empty folder in which the root is built
	Path     string   // of the program in the root
	Argv     []string // includes the command's name
	Env      []string
	WorkDir  string
	Image    []mount // files of the image, with the program
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

// Child turns the process into a container, if a Kubelet started it for that. Child
// then returns only with an error. Every program that runs a Kubelet must call Child
// first. In any other process Child does nothing.
func Child(argv0 string) error {
	if argv0 != childName {
		return nil
	}
	// Namespaces, identity and the parent-death signal belong to a thread, and only the
	// thread that calls exec remains.
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

// enter builds the root and moves the process into it.
func (r *root) enter() error {
	unix.Umask(0o022)
	// From here on mounts are invisible outside.
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
	if err := unix.PivotRoot(".", "."); err != nil { // stacks the old root on the new one
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
	// The container must not inherit other open files.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close files: %w", err)
	}
	return r.takeIdentity()
}

// mounts returns all mounts of the root, outer ones first.
func (r *root) mounts() []mount {
	all := append([]mount{{Source: "/proc", Target: "/proc", ReadOnly: true}}, r.Image...)
	for _, device := range []string{"null", "zero", "full", "random", "urandom"} {
		all = append(all, mount{Source: "/dev/" + device, Target: "/dev/" + device})
	}
	all = append(all, hostFiles("/etc/hosts", "/etc/resolv.conf")...)
	all = append(all, r.Mounts...)
	slices.SortStableFunc(all, func(a, b mount) int {
		return strings.Count(filepath.Clean(a.Target), "/") - strings.Count(filepath.Clean(b.Target), "/")
	})
	return all
}

// hostFiles returns mounts of those files and folders of this machine that exist.
func hostFiles(paths ...string) (all []mount) {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			all = append(all, mount{Source: path, Target: path, ReadOnly: true})
		}
	}
	return all
}

// in mounts m below dir.
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

// takeIdentity changes the process to the container's user and groups.
func (r *root) takeIdentity() error {
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
	// A change of identity clears the parent-death signal. Check the parent again,
	// because it may have died in between.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != r.Parent {
		return errors.New("the kubelet has ended")
	}
	return nil
}

// hasOtherUsers reports whether users other than root exist. They do not in a user
// namespace that an ordinary user created, and processes there cannot leave a group.
func hasOtherUsers() (bool, error) {
	b, err := os.ReadFile("/proc/self/setgroups")
	return strings.TrimSpace(string(b)) == "allow", err
}
