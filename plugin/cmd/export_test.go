package cmd

import (
	"bytes"
	"context"
	"io"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/provider/principal"
)

// Printable is what becomes of text from outside before a person sees it.
func Printable(s string) string { return printable(s) }

// Printed is a value as -o prints it.
func Printed(format string, v any) (string, error) {
	var b bytes.Buffer
	o := output{format: format}
	err := o.print(&b, data{value: v})
	return b.String(), err
}

// Running are the Pods that run in a cluster, by their names, each with the workload
// that it belongs to.
func Running(ctx context.Context, kubeconfig, namespace, selector string) (map[string]string, error) {
	g := &global{streams: genericiooptions.IOStreams{ErrOut: io.Discard}, kube: newKube(io.Discard)}
	*g.kube.KubeConfig = kubeconfig
	pods, err := g.runningPods(ctx, namespace, selector)
	if err != nil {
		return nil, err
	}
	workloads, err := g.workloads(ctx, namespace, pods)
	found := make(map[string]string)
	for i, w := range workloads {
		found[pods[i].name()] = w.APIVersion + "/" + w.Kind + "/" + w.Name
	}
	return found, err
}

// Lets is whether a statement, in a policy that is attached to the last of a line
// of compartments, lets the service that scans read a kind of resource in the
// first. Compartments are given by name; the tenancy is called (root).
func Lets(statement, resource string, line ...string) bool {
	compartments := make([]principal.Compartment, 0, len(line))
	for _, name := range line {
		c := principal.Compartment{ID: "ocid1.compartment.oc1.." + name, Name: name}
		if name == "(root)" {
			c.ID = "ocid1.tenancy.oc1..x"
		}
		compartments = append(compartments, c)
	}
	return lets(statement, resource, compartments)
}
