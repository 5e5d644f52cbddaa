package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Process is a process of a cluster.
type Process struct {
	Name  string `json:"name"` // of a Pod's container: namespace/pod/container
	State string `json:"state"`
	PID   int    `json:"pid,omitempty"` // inside the cluster
	Log   string `json:"log"`
}

// Actions on a process. On a container they only send the signal. A container that ends
// is started again, as by a kubelet.
const (
	ActionStart  = "start"
	ActionStop   = "stop"  // SIGTERM, and wait
	ActionKill   = "kill"  // SIGKILL, and wait
	ActionPause  = "pause" // SIGSTOP: it hangs
	ActionResume = "resume"
)

// Remote controls a running cluster, from inside or outside.
type Remote struct{ Dir string }

// Processes lists all processes of the cluster, running or not.
func (r Remote) Processes(ctx context.Context) ([]Process, error) {
	var list []Process
	return list, r.call(ctx, http.MethodGet, "/processes", &list)
}

// Do applies an action to the process of that name.
func (r Remote) Do(ctx context.Context, action, name string) error {
	return r.call(ctx, http.MethodPost, "/processes/"+url.PathEscape(name)+"/"+action, nil)
}

// Down ends the cluster.
func (r Remote) Down(ctx context.Context) error {
	return r.call(ctx, http.MethodPost, "/down", nil)
}

// Exec replaces this process with the command, inside the cluster. Exec returns only if
// it fails.
func (r Remote) Exec(command []string) error {
	pid, err := os.ReadFile(Config{Dir: r.Dir}.path("pid"))
	if err != nil {
		return err
	}
	var cfg Config
	text, err := os.ReadFile(Config{Dir: r.Dir}.path("config.json"))
	if err == nil {
		err = json.Unmarshal(text, &cfg)
	}
	if err != nil {
		return err
	}
	enter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	args := []string{"nsenter", "--target", string(pid), "--net", "--pid", "--mount", "--wdns=" + here}
	if os.Geteuid() != 0 {
		args = append(args, "--user", "--preserve-credentials")
	}
	cmd := exec.Cmd{Env: cfg.environ()}
	// Environ removes duplicate names. Programs differ in which duplicate they use.
	return syscall.Exec(enter, append(append(args, "--"), command...), cmd.Environ())
}

func (r Remote) call(ctx context.Context, method, path string, into any) error {
	socket := Config{Dir: r.Dir}.path("control.sock")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, method, "http://cluster"+path, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("no cluster runs in %s: %w", r.Dir, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return errors.New(string(bytes.TrimSpace(text)))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// serveControl serves the requests of Remote.
func (c *supervisor) serveControl(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", c.path("control.sock"))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /processes", func(w http.ResponseWriter, _ *http.Request) {
		list := []Process{}
		for _, p := range c.programs {
			list = append(list, p.status())
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(append(list, c.node.processes()...))
	})
	mux.HandleFunc("POST /processes/{name}/{action}", func(w http.ResponseWriter, r *http.Request) {
		if err := c.act(r.Context(), r.PathValue("action"), r.PathValue("name")); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	mux.HandleFunc("POST /down", func(http.ResponseWriter, *http.Request) {
		// The delay lets the answer leave before the kernel ends everything.
		time.AfterFunc(100*time.Millisecond, func() { c.end <- 0 })
	})
	go func() { _ = (&http.Server{Handler: mux, ReadHeaderTimeout: time.Second}).Serve(listener) }()
	return nil
}

// act applies an action to a process of the control plane, to the kubelet with all its
// containers, or to one container.
func (c *supervisor) act(ctx context.Context, action, name string) error {
	if name == "kubelet" {
		switch action {
		case ActionStart:
			return c.node.start()
		case ActionStop:
			return c.node.stop(ctx)
		}
		return fmt.Errorf("cannot %s the kubelet, only start and stop it", action)
	}
	p := c.program(name)
	if p == nil {
		return c.node.act(action, name)
	}
	switch action {
	case ActionStart:
		return p.start(ctx)
	case ActionStop:
		return p.end(ctx, syscall.SIGTERM)
	case ActionKill:
		return p.end(ctx, syscall.SIGKILL)
	case ActionPause, ActionResume:
		return p.pause(action == ActionPause)
	}
	return fmt.Errorf("no such action: %s", action)
}
