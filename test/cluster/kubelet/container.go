package kubelet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/securitycontext"
)

const (
	firstDelay = 200 * time.Millisecond
	lastDelay  = 5 * time.Second
	// backoffReset is the running time after which the restart delay starts again at
	// firstDelay.
	backoffReset = 30 * time.Second
	// shutdown is the time that a process has to end when the Kubelet ends.
	shutdown = 5 * time.Second
	// nonroot is the user of images that must not run as root and name no user.
	nonroot = 65532
)

// stopCause says that a Pod's containers must end, and within what time.
type stopCause struct{ grace time.Duration }

func (e stopCause) Error() string { return fmt.Sprintf("must end within %v", e.grace) }

// startError says why a container cannot start, with the reason for its status.
type startError struct {
	reason string
	error
}

// container runs one container of a Pod, and restarts it.
type container struct {
	pod  *pod
	spec *corev1.Container
	log  string
	up   chan struct{} // closed when the container has started up for the first time

	mu       sync.Mutex
	state    corev1.ContainerState
	last     corev1.ContainerState
	restarts int32
	started  bool
	ready    bool
	pid      int
}

// status returns the container's part of the Pod's status.
func (c *container) status() corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image,
		State: *c.state.DeepCopy(), LastTerminationState: *c.last.DeepCopy(),
		RestartCount: c.restarts, Ready: c.ready,
	}
	if c.pid != 0 {
		s.ContainerID = fmt.Sprintf("process://%d", c.pid)
	}
	started := c.started
	s.Started = &started
	return s
}

// process returns the running process, or one without a PID.
func (c *container) process() Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Process{Namespace: c.pod.namespace, Pod: c.pod.name, Container: c.spec.Name, PID: c.pid, Log: c.log, Restarts: int(c.restarts)}
	if c.state.Running != nil {
		s.Started = c.state.Running.StartedAt.Time
	}
	return s
}

// set changes the container's state and has the change reported.
func (c *container) set(change func()) {
	c.mu.Lock()
	change()
	c.mu.Unlock()
	c.pod.wake()
}

// run runs the container until it or ctx has ended for good. It reports whether the
// container ended well.
func (c *container) run(ctx context.Context) bool {
	delay := firstDelay
	for {
		began := time.Now()
		code, err := c.runOnce(ctx)
		switch {
		case err != nil:
			c.reportStartError(err)
		case ctx.Err() != nil || !c.shouldRestart(code):
			return code == 0
		}
		if time.Since(began) > backoffReset {
			delay = firstDelay
		}
		if err == nil {
			c.set(func() {
				c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
					Reason: "CrashLoopBackOff", Message: fmt.Sprintf("starts again after %v", delay),
				}}
			})
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(delay):
		}
		delay = min(2*delay, lastDelay)
		if err == nil {
			c.set(func() { c.restarts++ })
		}
	}
}

// shouldRestart reports whether the container must run again after it ended.
func (c *container) shouldRestart(code int32) bool {
	spec := c.pod.object().Spec
	if slices.Contains(c.pod.inits, c) && !podutil.IsRestartableInitContainer(c.spec) {
		return code != 0 && spec.RestartPolicy != corev1.RestartPolicyNever
	}
	return podutil.ContainerShouldRestart(*c.spec, spec, code)
}

// reportStartError records why the container does not start.
func (c *container) reportStartError(err error) {
	why := startError{reason: "CreateContainerError"}
	errors.As(err, &why)
	c.pod.event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("container %s: %v", c.spec.Name, err))
	c.set(func() {
		c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: why.reason, Message: err.Error()}}
	})
}

// runOnce runs the container's process once and returns its exit code.
func (c *container) runOnce(ctx context.Context) (int32, error) {
	cmd, err := c.command(ctx)
	if err != nil {
		return 0, err
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := start(cmd)
	if err != nil {
		return 0, err
	}
	began := metav1.Now()
	c.set(func() {
		c.pid = cmd.Process.Pid
		c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}
	})
	c.pod.event(corev1.EventTypeNormal, "Started", fmt.Sprintf("container %s is process %d, its log %s", c.spec.Name, cmd.Process.Pid, c.log))

	// Probes continue while the process ends, because a Service may still use it.
	probing, stop := context.WithCancel(context.WithoutCancel(ctx))
	restart := make(chan string, 1)
	var probes sync.WaitGroup
	probes.Go(func() { c.probe(probing, restart) })
	select {
	case <-ended:
	case <-ctx.Done():
		grace := shutdown
		if why := (stopCause{}); errors.As(context.Cause(ctx), &why) {
			grace = why.grace
		}
		c.end(cmd.Process, ended, grace)
	case why := <-restart:
		c.pod.event(corev1.EventTypeNormal, "Killing", fmt.Sprintf("container %s: %s", c.spec.Name, why))
		c.end(cmd.Process, ended, c.pod.grace())
	}
	stop()
	probes.Wait()

	code := exitCode(cmd.ProcessState)
	terminated := &corev1.ContainerStateTerminated{
		ExitCode: code, Reason: "Completed", StartedAt: began, FinishedAt: metav1.Now(),
		ContainerID: fmt.Sprintf("process://%d", cmd.Process.Pid),
	}
	if code != 0 {
		terminated.Reason = "Error"
		terminated.Message = fmt.Sprintf("%v; see %s", cmd.ProcessState, c.log)
	}
	c.set(func() {
		c.pid, c.started, c.ready = 0, false, false
		c.state = corev1.ContainerState{Terminated: terminated}
		c.last = c.state
	})
	return code, nil
}

// start starts a process and returns a channel that is closed when the process has
// ended.
func start(cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	started, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		// The parent-death signal is sent when this thread ends, so it must outlive the
		// child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // ProcessState has the result
		}
	}()
	return done, <-started
}

// end sends SIGTERM, and SIGKILL when the time is up or the Pod is gone.
func (c *container) end(process *os.Process, ended <-chan struct{}, grace time.Duration) {
	// An error means that the process has already ended.
	_ = process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
		return
	case <-time.After(grace):
	case <-c.pod.gone:
	}
	_ = process.Kill()
	<-ended
}

func exitCode(s *os.ProcessState) int32 {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int32(w.Signal()) // the convention of shells and container runtimes
	}
	return int32(s.ExitCode())
}

// command prepares the container's process.
func (c *container) command(ctx context.Context) (*exec.Cmd, error) {
	r, err := c.root(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{
		Path:  "/proc/self/exe",
		Args:  []string{childName},
		Env:   []string{},
		Stdin: bytes.NewReader(spec),
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNS,
			Setpgid:    true, // a terminal's Ctrl-C reaches only the Kubelet, which ends containers in order
			Pdeathsig:  syscall.SIGKILL,
		},
	}, nil
}

// root returns the container's description for the child process.
func (c *container) root(ctx context.Context) (*root, error) {
	k, object := c.pod.kubelet, c.pod.object()
	if err := supported(c.spec); err != nil {
		return nil, err
	}
	image, err := k.image(ctx, object, c.spec.Image)
	if err != nil {
		return nil, startError{"ErrImagePull", err}
	}
	env, err := k.environment(object, c.spec)
	if err != nil {
		return nil, startError{"CreateContainerConfigError", err}
	}
	command, args := commandLine(c.spec, env)
	r := &root{
		Parent:  os.Getpid(),
		Dir:     filepath.Join(c.pod.dir, "root"),
		Env:     variables(image.environment(env)),
		WorkDir: path.Join("/", c.spec.WorkingDir),
	}
	if image.Path != "" {
		r.useProgram(image.Program, command)
		if image.Args != nil {
			args = image.Args(object, c.spec, args)
		}
		r.Argv = append(r.Argv, args...)
	} else {
		if r.Argv, err = image.command(command, args); err != nil {
			return nil, err
		}
		r.Path, r.Image = r.Argv[0], image.files
	}
	if r.Mounts, err = c.mounts(); err != nil {
		return nil, err
	}
	if err := r.secure(object, c.spec, image); err != nil {
		return nil, err
	}
	return r, os.MkdirAll(r.Dir, 0o755)
}

// useProgram puts a program at the path of the command, or else under its own name.
func (r *root) useProgram(program Program, command []string) {
	r.Path = path.Join("/", filepath.Base(program.Path))
	if len(command) == 0 {
		command = []string{r.Path}
	} else if path.IsAbs(command[0]) {
		r.Path = path.Clean(command[0])
	}
	r.Argv = command
	r.Image = append(hostFiles("/etc/ssl"), mount{Source: program.Path, Target: r.Path, ReadOnly: true}) // certificate authorities, as in images
}

// mounts returns the Pod's volumes as mounts of the container.
func (c *container) mounts() ([]mount, error) {
	var all []mount
	for _, m := range c.spec.VolumeMounts {
		dir, ok := c.pod.volumes[m.Name]
		if !ok {
			return nil, fmt.Errorf("the pod has no volume %s", m.Name)
		}
		if m.SubPath != "" {
			if !filepath.IsLocal(m.SubPath) {
				return nil, fmt.Errorf("sub-path %q leaves volume %s", m.SubPath, m.Name)
			}
			dir = filepath.Join(dir, m.SubPath)
		}
		all = append(all, mount{Source: dir, Target: m.MountPath, ReadOnly: m.ReadOnly || !c.pod.writable(m.Name)})
	}
	return all, nil
}

// secure applies the security context: the user of the process and the files it may
// write. If only root exists, the process stays root.
func (r *root) secure(pod *corev1.Pod, c *corev1.Container, i image) error {
	sc := securitycontext.DetermineEffectiveSecurityContext(pod, c)
	r.ReadOnly = sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem
	r.NoNewPrivileges = securitycontext.AddNoNewPrivileges(sc)
	id, err := i.identity()
	if err != nil {
		return err
	}
	switch {
	case sc.RunAsUser != nil:
		id.User = int(*sc.RunAsUser)
	case sc.RunAsNonRoot != nil && *sc.RunAsNonRoot && i.Path != "":
		id.User, id.Group = nonroot, nonroot
	}
	if sc.RunAsGroup != nil {
		id.Group = int(*sc.RunAsGroup)
	}
	if p := pod.Spec.SecurityContext; p != nil {
		for _, g := range p.SupplementalGroups {
			id.Groups = append(id.Groups, int(g))
		}
		if p.FSGroup != nil {
			id.Groups = append(id.Groups, int(*p.FSGroup))
		}
	}
	if sc.RunAsNonRoot != nil && *sc.RunAsNonRoot && id.User == 0 {
		return startError{"CreateContainerConfigError", errors.New("must not run as root, but its user is 0")}
	}
	if ok, err := hasOtherUsers(); !ok || err != nil {
		return err
	}
	r.Identity = id
	return nil
}

// supported returns an error for settings that this kubelet would otherwise silently
// ignore.
func supported(c *corev1.Container) error {
	for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		if p != nil && p.HTTPGet == nil && p.TCPSocket == nil {
			return errors.New("only probes by HTTP and TCP are supported")
		}
	}
	if c.Lifecycle != nil && (c.Lifecycle.PostStart != nil || c.Lifecycle.PreStop != nil) {
		return errors.New("hooks are not supported")
	}
	if len(c.VolumeDevices) > 0 {
		return errors.New("block devices are not supported")
	}
	for _, m := range c.VolumeMounts {
		if m.SubPathExpr != "" {
			return errors.New("expressions for sub-paths are not supported")
		}
	}
	return nil
}
