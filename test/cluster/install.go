package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// emulatorOCID returns the OCID of an object of the emulator's seed.
func emulatorOCID(ctx context.Context, kind, name string) (string, error) {
	text, err := get(ctx, http.DefaultClient, "http://"+emulator+"/_emulator/state")
	if err != nil {
		return "", err
	}
	var state map[string]json.RawMessage
	if err := json.Unmarshal(text, &state); err != nil {
		return "", err
	}
	var all map[string]struct{ Name string }
	if err := json.Unmarshal(state[kind], &all); err != nil {
		return "", fmt.Errorf("the emulator's %s: %w", kind, err)
	}
	for id, one := range all {
		if one.Name == name {
			return id, nil
		}
	}
	return "", fmt.Errorf("the emulator's %s have no %s", kind, name)
}

// policy writes, but does not apply, a policy that allows the emulator's key.
func (c *supervisor) policy(ctx context.Context) error {
	key, err := emulatorOCID(ctx, "keys", "image-key")
	if err != nil {
		return err
	}
	_, err = c.render("policy.yaml", map[string]any{"Key": key})
	return err
}

// nodes adds the Nodes that kwok simulates, and the Node whose Pods are processes.
func (c *supervisor) nodes(ctx context.Context) error {
	if err := c.apply(ctx, "namespaces.yaml", nil); err != nil {
		return err
	}
	if err := c.apply(ctx, "nodes.yaml", map[string]any{"Nodes": []int{0, 1, 2}}); err != nil {
		return err
	}
	if err := c.node.start(); err != nil {
		return err
	}
	if err := c.forwardServices(); err != nil {
		return err
	}
	if err := c.serveWorkloadIdentity(ctx); err != nil {
		return err
	}
	return c.kubectl(ctx, nil, "wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
}

// gatekeeper installs Gatekeeper by its chart, as its users do.
func (c *supervisor) gatekeeper(ctx context.Context) error {
	here, err := c.render("gatekeeper-values.yaml", nil)
	if err != nil {
		return err
	}
	return c.run(ctx, nil, "helm", "install", "gatekeeper", filepath.Join(c.Programs, "gatekeeper-chart"),
		"--namespace", "gatekeeper-system", "--wait", "--timeout", startTimeout.String(),
		"--values", filepath.Join(c.Project, "charts", "oke-sign", "gatekeeper-values.yaml"), "--values", here)
}

// okeSign installs the provider and the templates.
func (c *supervisor) okeSign(ctx context.Context) error {
	for _, do := range []func() error{
		func() error {
			return c.apply(ctx, "provider.yaml", map[string]any{"OCI": c.path("oci"), "Emulator": emulator})
		},
		func() error { return c.templates(ctx) },
		func() error { return c.namespaceLabels(ctx) },
		func() error { return c.policy(ctx) },
		func() error {
			return c.kubectl(ctx, nil, "-n", "oke-sign", "rollout", "status", "deployment/oke-sign", "--timeout="+startTimeout.String())
		},
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// templates applies the ConstraintTemplates. It waits until every process of Gatekeeper
// has loaded them, because an earlier constraint would have no effect.
func (c *supervisor) templates(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(c.Project, "policies", "*", "template.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("no ConstraintTemplates in policies/*")
	}
	args := []string{"apply"}
	for _, file := range files {
		args = append(args, "-f", file)
	}
	if err := c.kubectl(ctx, nil, args...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return poll(ctx, func(ctx context.Context) error {
		var out bytes.Buffer
		if err := c.kubectl(ctx, &out, "get", "constrainttemplates", "-o", "json"); err != nil {
			return err
		}
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
				Status   struct {
					Created bool
					ByPod   []struct{ Errors []struct{ Message string } }
				}
			}
		}
		if err := json.Unmarshal(out.Bytes(), &list); err != nil {
			return err
		}
		for _, t := range list.Items {
			for _, pod := range t.Status.ByPod {
				if len(pod.Errors) > 0 {
					return permanent{fmt.Errorf("template %s: %s", t.Metadata.Name, pod.Errors[0].Message)}
				}
			}
			if !t.Status.Created || len(t.Status.ByPod) < 2 { // the webhook's process and the audit's
				return fmt.Errorf("template %s is not loaded yet", t.Metadata.Name)
			}
		}
		return nil
	})
}

// namespaceLabels installs the ValidatingAdmissionPolicy as the chart renders it, and
// waits until the API server enforces it.
func (c *supervisor) namespaceLabels(ctx context.Context) error {
	var text bytes.Buffer
	err := c.run(ctx, &text, "helm", "template", "oke-sign", filepath.Join(c.Project, "charts", "oke-sign"), "--namespace", "oke-sign",
		"--set", "oci.region=us-ashburn-1", "--show-only", "templates/namespacelabels.yaml")
	if err != nil {
		return err
	}
	file := c.path("namespace-labels.yaml")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return err
	}
	if err := c.kubectl(ctx, nil, "apply", "-f", file); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return poll(ctx, func(ctx context.Context) error {
		err := c.kubectl(ctx, nil, "patch", "namespace", "default", "--subresource=status", "--type=merge", "--dry-run=server",
			"--patch", `{"metadata":{"labels":{"oke-sign.dev/enforced":"no"}}}`)
		switch {
		case err == nil:
			return errors.New("labels of a namespace still change through its status")
		case strings.Contains(err.Error(), "ValidatingAdmissionPolicy"):
			return nil
		default:
			return err
		}
	})
}

// render fills in one of the manifests and writes it to the cluster's folder.
func (c *supervisor) render(name string, values map[string]any) (file string, err error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(manifests, "manifests/"+name)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, values); err != nil {
		return "", err
	}
	file = c.path(name)
	return file, os.WriteFile(file, text.Bytes(), 0o600)
}

func (c *supervisor) apply(ctx context.Context, name string, values map[string]any) error {
	file, err := c.render(name, values)
	if err != nil {
		return err
	}
	return c.kubectl(ctx, nil, "apply", "-f", file)
}

func (c *supervisor) kubectl(ctx context.Context, out io.Writer, args ...string) error {
	return c.run(ctx, out, "kubectl", args...)
}

// run runs a program as the administrator. An error includes the program's output.
func (c *supervisor) run(ctx context.Context, out io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Programs, name), args...)
	cmd.Env = c.environ()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if out != nil {
		cmd.Stdout = out
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}
