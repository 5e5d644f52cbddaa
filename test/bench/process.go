package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// program is a server in a separate process, as in a cluster.
type program struct {
	cmd    *exec.Cmd
	pid    int
	addr   string // address for questions
	health string // of the provider only
	done   chan struct{}
}

// buildProvider builds the measured program.
func buildProvider(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "oke-sign-provider")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/oke-sign/oke-sign/provider/oke-sign-provider")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building the provider: %w", err)
	}
	return path, nil
}

// startProvider runs the provider as a user of an emulated OCI. Its log goes into a
// pipe with a reader, like the log of a container.
func startProvider(ctx context.Context, path, dir, config string, env []string, flags ...string) (*program, error) {
	file := func(name string) string { return filepath.Join(dir, name) }
	args := append([]string{
		"--addr", "127.0.0.1:0", "--health-addr", "127.0.0.1:0", "--drain", "0s", "--config-file", config,
		"--tls-cert", file("tls.crt"), "--tls-key", file("tls.key"), "--client-ca", file("ca.crt"), "--client-name", callerName,
	}, flags...)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	log, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &program{cmd: cmd, pid: cmd.Process.Pid, done: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		defer close(p.done)
		p.follow(log, ready)
		_, _ = io.Copy(io.Discard, log)
		_ = cmd.Wait() // it was ended by a signal
	}()
	select {
	case <-ready:
		return p, nil
	case <-p.done:
		return nil, errors.New("the provider ended before it was ready")
	}
}

// follow reads the log up to the line that reports readiness.
func (p *program) follow(log io.Reader, ready chan<- struct{}) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, Addr, HealthAddr string }
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			fmt.Fprintln(os.Stderr, lines.Text())
			continue
		}
		switch line.Msg {
		case "serving":
			p.addr, p.health = line.Addr, line.HealthAddr
		case "ready":
			close(ready)
			return
		}
	}
}

func (p *program) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
}

// cpu returns the user and system time of the process so far.
func (p *program) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0, err
	}
	// The second field may contain spaces, and ends with a parenthesis.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("reading the process's times: %q", stat)
	}
	const tick = 10 * time.Millisecond // the unit in which Linux reports times
	var total time.Duration
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("reading the process's times: %w", err)
		}
		total += time.Duration(n) * tick
	}
	return total, nil
}

// resident returns the resident memory of the process, in MiB.
func (p *program) resident() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return float64(kib) / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmRSS of process %d", p.pid)
}

// metric reads one series of the provider's metrics.
func (p *program) metric(ctx context.Context, series string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.health+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			return strconv.ParseFloat(rest, 64)
		}
	}
	return 0, fmt.Errorf("no series %s", series)
}
