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
	// A container that ran that long is started again without having to pay for what
	// was before.
	steady = 30 * time.Second
	// shutdown is what a process gets to end in when the Kubelet ends.
	shutdown = 5 * time.Second
	// nonroot is the user of images that must not run as root and do not say as whom.
	nonroot = 65532
)

// ending is why a Pod's containers are to end, and in what time.
type ending struct{ grace time.Duration }

func (e ending) Error() string { return fmt.Sprintf("to end within %v", e.grace) }

// refusal is why a container can not be started, as its status says it.
type refusal struct {
	reason string
	error
}

// container runs one container of a Pod, again and again.
type container struct {
	pod  *pod
	spec *corev1.Container
	log  string
	up   chan struct{} // closed when it has started up for the first time

	mu       sync.Mutex
	state    corev1.ContainerState
	last     corev1.ContainerState
	restarts int32
	started  bool
	ready    bool
	pid      int
}

// status is what the Pod's status says of it.
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

// process is what runs now, or one without a PID.
func (c *container) process() Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Process{Namespace: c.pod.namespace, Pod: c.pod.name, Container: c.spec.Name, PID: c.pid, Log: c.log, Restarts: int(c.restarts)}
	if c.state.Running != nil {
		s.Started = c.state.Running.StartedAt.Time
	}
	return s
}

// set changes what is known of the container and has it reported.
func (c *container) set(change func()) {
	c.mu.Lock()
	change()
	c.mu.Unlock()
	c.pod.poke()
}

// run runs the container until it has ended for good or the context has. It
// returns whether it ended well.
func (c *container) run(ctx context.Context) bool {
	delay := firstDelay
	for {
		began := time.Now()
		code, err := c.once(ctx)
		switch {
		case err != nil:
			c.refused(err)
		case ctx.Err() != nil || !c.again(code):
			return code == 0
		}
		if time.Since(began) > steady {
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

// again says whether the container is to run again after it ended.
func (c *container) again(code int32) bool {
	spec := c.pod.object().Spec
	if slices.Contains(c.pod.inits, c) && !podutil.IsRestartableInitContainer(c.spec) {
		return code != 0 && spec.RestartPolicy != corev1.RestartPolicyNever
	}
	return podutil.ContainerShouldRestart(*c.spec, spec, code)
}

// refused reports why the container does not start.
func (c *container) refused(err error) {
	why := refusal{reason: "CreateContainerError"}
	errors.As(err, &why)
	c.pod.event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("container %s: %v", c.spec.Name, err))
	c.set(func() {
		c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: why.reason, Message: err.Error()}}
	})
}

// once runs the container's process and returns how it ended.
func (c *container) once(ctx context.Context) (int32, error) {
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

	// Probes go on while the process ends: a Service may need it still.
	probing, stop := context.WithCancel(context.WithoutCancel(ctx))
	sick := make(chan string, 1)
	var probes sync.WaitGroup
	probes.Go(func() { c.probe(probing, sick) })
	select {
	case <-ended:
	case <-ctx.Done():
		grace := shutdown
		if why := (ending{}); errors.As(context.Cause(ctx), &why) {
			grace = why.grace
		}
		c.end(cmd.Process, ended, grace)
	case why := <-sick:
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

// start starts a process and says when it has ended.
func start(cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	started, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		// The kernel takes the end of this thread for the end of the parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // ProcessState says how it ended
		}
	}()
	return done, <-started
}

// end asks the process to end, and makes it when the time is up or the Pod is gone.
func (c *container) end(process *os.Process, ended <-chan struct{}, grace time.Duration) {
	// An error says that it has ended, which is what was wanted.
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
		return 128 + int32(w.Signal()) // as shells and container runtimes say it
	}
	return int32(s.ExitCode())
}

// command prepares the container's process.
func (c *container) command(ctx context.Context) (*exec.Cmd, error) {
	r, err := c.root(ctx)
	if err != nil {
		return nil, err
	}
	told, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{
		Path:  "/proc/self/exe",
		Args:  []string{childName},
		Env:   []string{},
		Stdin: bytes.NewReader(told),
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNS,
			Setpgid:    true, // a terminal's Ctrl-C is for the Kubelet, which ends it in order
			Pdeathsig:  syscall.SIGKILL,
		},
	}, nil
}

// root is what the child is told.
func (c *container) root(ctx context.Context) (*root, error) {
	k, object := c.pod.kubelet, c.pod.object()
	if err := supported(c.spec); err != nil {
		return nil, err
	}
	image, err := k.image(ctx, object, c.spec.Image)
	if err != nil {
		return nil, refusal{"ErrImagePull", err}
	}
	env, err := k.environment(object, c.spec)
	if err != nil {
		return nil, refusal{"CreateContainerConfigError", err}
	}
	command, args := commandLine(c.spec, env)
	r := &root{
		Parent:  os.Getpid(),
		Dir:     filepath.Join(c.pod.dir, "root"),
		Env:     variables(image.environment(env)),
		WorkDir: path.Join("/", c.spec.WorkingDir),
	}
	if image.Path != "" {
		r.stands(image.Program, command)
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

// stands puts a program where the command says, or else under its own name.
func (r *root) stands(program Program, command []string) {
	r.Path = path.Join("/", filepath.Base(program.Path))
	if len(command) == 0 {
		command = []string{r.Path}
	} else if path.IsAbs(command[0]) {
		r.Path = path.Clean(command[0])
	}
	r.Argv = command
	r.Image = append(machines("/etc/ssl"), mount{Source: program.Path, Target: r.Path, ReadOnly: true}) // authorities, as images have them
}

// mounts are the Pod's volumes as the container wants them.
func (c *container) mounts() ([]mount, error) {
	var all []mount
	for _, m := range c.spec.VolumeMounts {
		dir, ok := c.pod.volumes[m.Name]
		if !ok {
			return nil, fmt.Errorf("the pod has no volume %s", m.Name)
		}
		if m.SubPath != "" {
			if !filepath.IsLocal(m.SubPath) {
				return nil, fmt.Errorf("sub-path %q leads out of volume %s", m.SubPath, m.Name)
			}
			dir = filepath.Join(dir, m.SubPath)
		}
		all = append(all, mount{Source: dir, Target: m.MountPath, ReadOnly: m.ReadOnly || !c.pod.writable(m.Name)})
	}
	return all, nil
}

// secure does as the security context says: who the process is and what it may
// write to. Where only root exists it stays root.
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
		return refusal{"CreateContainerConfigError", errors.New("must not run as root, and user 0 is root")}
	}
	if ok, err := users(); !ok || err != nil {
		return err
	}
	r.Identity = id
	return nil
}

// supported refuses what would otherwise silently not happen.
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
