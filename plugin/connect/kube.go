package connect

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// ErrNoCluster says that no kubeconfig names a cluster.
var ErrNoCluster = errors.New("no kubeconfig names a cluster")

// errNoKubeconfig says that nothing names a cluster. Kubernetes' client adds an address
// that nobody named.
var errNoKubeconfig = errors.New("there is no kubeconfig, so there is no cluster to ask")

// Kube is the cluster of kubectl's own flags and kubeconfig. It reads nothing before a
// command asks for a client.
type Kube struct {
	*genericclioptions.ConfigFlags
}

// NewKube makes a Kube without kubectl's flags for debugging and for old clusters.
func NewKube(errOut io.Writer) *Kube {
	k := &Kube{genericclioptions.NewConfigFlags(true)}
	f := k.ConfigFlags
	f.CacheDir, f.DisableCompression, f.ImpersonateUID, f.ImpersonateUserExtra = nil, nil, nil, nil
	f.WrapConfigFn = func(c *rest.Config) *rest.Config {
		c.UserAgent = "kubectl-oke_sign"
		c.QPS, c.Burst = 50, 300 // kubectl's bound of a client; the server has its own
		c.WarningHandler = rest.NewWarningWriter(errOut, rest.WarningWriterOptions{Deduplicate: true})
		lost := !k.names() && c.BearerTokenFile == ""
		c.Wrap(func(next http.RoundTripper) http.RoundTripper { return hinting{k, lost, next} })
		return c
	}
	return k
}

// hinting adds a hint to the error of a request without an answer.
type hinting struct {
	kube *Kube
	lost bool // nothing names a cluster
	http.RoundTripper
}

func (h hinting) RoundTrip(r *http.Request) (*http.Response, error) {
	if h.lost {
		return nil, errNoKubeconfig
	}
	answer, err := h.RoundTripper.RoundTrip(r)
	if err == nil || r.Context().Err() != nil {
		return answer, err
	}
	of := "the kubeconfig"
	if name, _ := h.kube.ContextName(); name != "" && *h.kube.APIServer == "" {
		of = "context " + name
	}
	return nil, &cli.HintedError{What: err, Hint: "check that the cluster runs, and that " + of + " has its address"}
}

// bind adds kubectl's flags. Help lists only those that people type often.
func (k *Kube) bind(flags *pflag.FlagSet) {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	k.AddFlags(own)
	for name, usage := range map[string]string{
		"context":    "Kubeconfig context `NAME`. Default: the current context.",
		"kubeconfig": "Kubeconfig `FILE`. Default: as for kubectl.",
		"namespace":  "`NAMESPACE` to work in. Default: the context's.",
	} {
		own.Lookup(name).Usage = usage
	}
	own.VisitAll(func(f *pflag.Flag) {
		f.Hidden = f.Name != "context" && f.Name != "kubeconfig" && f.Name != "namespace"
	})
	flags.AddFlagSet(own)
}

// CurrentNamespace returns the namespace of -n, or of the context.
func (k *Kube) CurrentNamespace() (string, error) {
	namespace, _, err := k.ToRawKubeConfigLoader().Namespace()
	return namespace, Unreachable(err)
}

// ContextName returns the name of --context, or of the current context, or "" without
// one. It rejects a --context that the kubeconfig does not have.
func (k *Kube) ContextName() (string, error) {
	raw, err := k.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return "", Unreachable(err)
	}
	name := *k.Context
	switch {
	case name == "":
		return raw.CurrentContext, nil
	case raw.Contexts[name] != nil:
		return name, nil
	}
	hint := "kubectl config get-contexts lists the contexts"
	if near := cli.Near(name, slices.Sorted(maps.Keys(raw.Contexts))); len(near) > 0 {
		hint = "did you mean --context " + near[0] + "?"
	}
	return "", &cli.HintedError{What: fmt.Errorf("context %q does not exist", name), Hint: hint}
}

// Leads reports whether a kubeconfig, a flag or the Pod of this process names a cluster.
// Without one, Kubernetes' client would try port 8080 of this machine.
func (k *Kube) Leads() bool {
	if k.names() {
		return true
	}
	config, err := k.ToRESTConfig()
	return err != nil || config.BearerTokenFile != "" // the token of the Pod's service account
}

// names reports whether a kubeconfig or a flag names a cluster. A kubeconfig that cannot
// be read counts.
func (k *Kube) names() bool {
	raw, err := k.ToRawKubeConfigLoader().RawConfig()
	return err != nil || len(raw.Clusters) > 0 || *k.APIServer != ""
}

// Objects returns a client for objects of any kind.
func (k *Kube) Objects() (dynamic.Interface, error) {
	config, err := k.ToRESTConfig()
	if err != nil {
		return nil, Unreachable(err)
	}
	return dynamic.NewForConfig(config)
}

// Typed returns a client for Kubernetes' built-in kinds.
func (k *Kube) Typed() (kubernetes.Interface, error) {
	config, err := k.ToRESTConfig()
	if err != nil {
		return nil, Unreachable(err)
	}
	return kubernetes.NewForConfig(config)
}

// Knows reports whether the cluster has a resource type of this name, by kubectl's rules.
func (k *Kube) Knows(resource string) bool {
	mapper, err := k.ToRESTMapper()
	if err != nil {
		return false
	}
	_, err = mapper.ResourceFor(schema.GroupVersionResource{Resource: strings.ToLower(resource)})
	return err == nil
}

// Builder returns kubectl's finder of objects: by TYPE/NAME, label and namespace.
func (k *Kube) Builder() *resource.Builder {
	return resource.NewBuilder(k).Unstructured().ContinueOnError().Flatten()
}

// Unreachable adds a hint to an error about the kubeconfig.
func Unreachable(err error) error {
	if err == nil {
		return nil
	}
	return &cli.HintedError{What: fmt.Errorf("finding the cluster: %w", err), Hint: "check the kubeconfig, or use another with --kubeconfig or --context"}
}

// FieldManager is the field manager of the plugin's changes in a cluster.
const FieldManager = "kubectl-oke_sign"
