package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// program is one process of the control plane: how to start it, and how to check that
// it is up.
type program struct {
	name  string
	args  []string
	env   []string
	ready func(ctx context.Context) error // nil if nobody waits for it
	log   string
	path  string

	mu     sync.Mutex
	cmd    *exec.Cmd // nil while it does not run
	paused bool
	ended  chan struct{} // closed when cmd has ended
}

// startTimeout bounds the start of any one part. It is minutes because a compiler may
// run at the same time.
const startTimeout = 3 * time.Minute

// start starts the program and waits until it is ready.
func (p *program) start(ctx context.Context) error {
	ended, err := p.spawn(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	if p.ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = poll(ctx, func(ctx context.Context) error {
		select {
		case <-ended:
			return permanent{errors.New("ended")}
		default:
			return p.ready(ctx)
		}
	})
	if err != nil {
		return fmt.Errorf("%s did not come up, see %s: %w", p.name, p.log, err)
	}
	return nil
}

func (p *program) spawn(ctx context.Context) (ended <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return nil, errors.New("runs already")
	}
	if err := os.MkdirAll(filepath.Dir(p.log), 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.path, p.args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(p.log)}, p.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // keeps a terminal's Ctrl-C away
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	p.cmd, p.ended, p.paused = cmd, done, false
	go func() {
		_ = cmd.Wait() // the log says how it ended
		p.mu.Lock()
		p.cmd = nil
		p.mu.Unlock()
		close(done)
	}()
	return done, nil
}

// end sends the signal and waits until the process has ended.
func (p *program) end(ctx context.Context, signal syscall.Signal) error {
	p.mu.Lock()
	cmd, ended := p.cmd, p.ended
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w", p.name, ctx.Err())
	}
}

// pause stops or resumes the process. A stopped process acts like a machine that hangs:
// the kernel accepts connections, and nobody answers.
func (p *program) pause(stop bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("%s does not run", p.name)
	}
	signal := syscall.SIGCONT
	if stop {
		signal = syscall.SIGSTOP
	}
	p.paused = stop
	return p.cmd.Process.Signal(signal)
}

func (p *program) status() Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Process{Name: p.name, Log: p.log, State: "stopped"}
	if p.cmd != nil {
		s.PID, s.State = p.cmd.Process.Pid, "running"
		if p.paused {
			s.State = "paused"
		}
	}
	return s
}

// permanent is an error that waiting does not fix.
type permanent struct{ error }

// poll calls do until it succeeds, fails permanently, or ctx ends.
func poll(ctx context.Context, do func(context.Context) error) error {
	for {
		err := do(ctx)
		if err == nil {
			return nil
		}
		var end permanent
		if errors.As(err, &end) {
			return end.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
