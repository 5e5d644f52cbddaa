package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// process is a running program of the demo. If it fails, the demo shows its last
// lines on standard error.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *tail
	done chan struct{}
	err  error // how it ended, once done is closed
}

// start runs a program, and returns its first line on standard output or standard
// error that contains ready.
func start(ctx context.Context, env []string, ready, program string, args ...string) (*process, string, error) {
	// stop ends the program. The context only bounds the wait for its start.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, args...)
	cmd.Env = env
	// Ctrl-C goes to the demo alone, which stops its processes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, "", err
	}
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		return nil, "", errors.Join(err, reader.Close(), writer.Close())
	}
	_ = writer.Close()
	p := &process{name: filepath.Base(program), cmd: cmd, log: &tail{}, done: make(chan struct{})}
	found := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(reader)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.log.add(lines.Text())
			if strings.Contains(lines.Text(), ready) {
				select {
				case found <- lines.Text():
				default:
				}
			}
		}
		_, _ = io.Copy(io.Discard, reader)
		_ = reader.Close()
		p.err = cmd.Wait()
		close(p.done)
	}()
	select {
	case line := <-found:
		return p, line, nil
	case <-p.done:
		return nil, "", errors.Join(p.err, fmt.Errorf("%s ended before it was ready:\n%s", p.name, p.log))
	case <-time.After(30 * time.Second):
		p.stop()
		return nil, "", fmt.Errorf("%s is not ready after 30 s:\n%s", p.name, p.log)
	case <-ctx.Done():
		p.stop()
		return nil, "", ctx.Err()
	}
}

// stop ends the program, by force if it does not end in time.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// tail stores the last lines of a log.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines = append(t.lines, line); len(t.lines) > 200 {
		t.lines = t.lines[1:]
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}

// result has the output and the exit code of a command.
type result struct {
	stdout, stderr string
	code           int
}

// onTerminal runs a program whose output goes to a terminal with this many columns. The
// program writes no colours, because the demo colours its story itself.
func onTerminal(ctx context.Context, columns uint16, env []string, program string, args ...string) (result, error) {
	ours, theirs, err := pty.Open()
	if err != nil {
		return result{}, err
	}
	defer ours.Close()
	if err := pty.Setsize(theirs, &pty.Winsize{Rows: 60, Cols: columns}); err != nil {
		return result{}, errors.Join(err, theirs.Close())
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(slices.Clip(env), "NO_COLOR=1"), theirs, theirs
	var shown bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&shown, ours) // ends with EIO when the program closes its side
	}()
	err = errors.Join(cmd.Run(), theirs.Close())
	<-read
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return result{}, fmt.Errorf("running %s: %w", filepath.Base(program), err)
	}
	return result{stdout: strings.ReplaceAll(shown.String(), "\r\n", "\n"), code: cmd.ProcessState.ExitCode()}, ctx.Err()
}

func run(ctx context.Context, env []string, program string, args ...string) (result, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return result{}, fmt.Errorf("running %s: %w", filepath.Base(program), err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}, ctx.Err()
}
