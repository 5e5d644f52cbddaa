package connect

import (
	"errors"
	"fmt"
	"io"
	"net/http"
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

// ErrNoCluster says that no kubeconfig leads to a cluster.
var ErrNoCluster = errors.New("no kubeconfig names a cluster")

// Kube is the cluster that kubectl's own flags and kubeconfig lead to. Nothing
// is read before a command asks for something.
type Kube struct {
	*genericclioptions.ConfigFlags
}

// NewKube leaves out what kubectl has for debugging and for old clusters.
func NewKube(errOut io.Writer) *Kube {
	k := &Kube{genericclioptions.NewConfigFlags(true)}
	f := k.ConfigFlags
	f.CacheDir, f.DisableCompression, f.ImpersonateUID, f.ImpersonateUserExtra = nil, nil, nil, nil
	f.WrapConfigFn = func(c *rest.Config) *rest.Config {
		c.UserAgent = "kubectl-oke_sign"
		c.QPS, c.Burst = 50, 300 // the client's own bound, kubectl's; the server has another
		c.WarningHandler = rest.NewWarningWriter(errOut, rest.WarningWriterOptions{Deduplicate: true})
		lost := !k.names() && c.BearerTokenFile == ""
		c.Wrap(func(next http.RoundTripper) http.RoundTripper { return hinting{k, lost, next} })
		return c
	}
	return k
}

// hinting says of requests that got no answer what to do about it.
type hinting struct {
	kube *Kube
	lost bool // nothing leads to a cluster
	http.RoundTripper
}

func (h hinting) RoundTrip(r *http.Request) (*http.Response, error) {
	if h.lost {
		return nil, &cli.HintedError{What: errors.New("there is no kubeconfig"), Hint: "name one with --kubeconfig or the variable KUBECONFIG"}
	}
	answer, err := h.RoundTripper.RoundTrip(r)
	if err == nil || r.Context().Err() != nil {
		return answer, err
	}
	of := "the kubeconfig"
	if name, _ := h.kube.ContextName(); name != "" && *h.kube.APIServer == "" {
		of = "context " + name
	}
	return nil, &cli.HintedError{What: err, Hint: "is the cluster there, and does " + of + " lead to it?"}
}

// bind adds kubectl's flags. Help lists those that people type; it would be all
// about the others otherwise.
func (k *Kube) bind(flags *pflag.FlagSet) {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	k.AddFlags(own)
	for name, usage := range map[string]string{
		"context":    "Kubeconfig context `NAME` to use, instead of the current one.",
		"kubeconfig": "Kubeconfig `FILE`; as for kubectl unless given.",
		"namespace":  "`NAMESPACE` to work in, instead of the context's.",
	} {
		own.Lookup(name).Usage = usage
	}
	own.VisitAll(func(f *pflag.Flag) {
		f.Hidden = f.Name != "context" && f.Name != "kubeconfig" && f.Name != "namespace"
	})
	flags.AddFlagSet(own)
}

// CurrentNamespace is the one to work in: of -n, or of the context.
func (k *Kube) CurrentNamespace() (string, error) {
	namespace, _, err := k.ToRawKubeConfigLoader().Namespace()
	return namespace, Unreachable(err)
}

// ContextName is the name of the context in use, or "" outside of any.
func (k *Kube) ContextName() (string, error) {
	raw, err := k.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return "", Unreachable(err)
	}
	if *k.Context != "" {
		return *k.Context, nil
	}
	return raw.CurrentContext, nil
}

// Leads reports whether a kubeconfig, a flag or the Pod that this runs in leads to
// a cluster. Kubernetes' own client would try port 8080 of this machine.
func (k *Kube) Leads() bool {
	if k.names() {
		return true
	}
	config, err := k.ToRESTConfig()
	return err != nil || config.BearerTokenFile != "" // of the Pod's service account
}

// names reports whether a kubeconfig or a flag names a cluster, or ought to.
func (k *Kube) names() bool {
	raw, err := k.ToRawKubeConfigLoader().RawConfig()
	return err != nil || len(raw.Clusters) > 0 || *k.APIServer != ""
}

// Objects is a client for objects of any kind.
func (k *Kube) Objects() (dynamic.Interface, error) {
	config, err := k.ToRESTConfig()
	if err != nil {
		return nil, Unreachable(err)
	}
	return dynamic.NewForConfig(config)
}

// Typed is a client for what Kubernetes itself defines.
func (k *Kube) Typed() (kubernetes.Interface, error) {
	config, err := k.ToRESTConfig()
	if err != nil {
		return nil, Unreachable(err)
	}
	return kubernetes.NewForConfig(config)
}

// Knows reports whether the cluster has a type of objects of this name, as kubectl
// would take it.
func (k *Kube) Knows(resource string) bool {
	mapper, err := k.ToRESTMapper()
	if err != nil {
		return false
	}
	_, err = mapper.ResourceFor(schema.GroupVersionResource{Resource: strings.ToLower(resource)})
	return err == nil
}

// Builder finds objects as kubectl does: by TYPE/NAME, label and namespace.
func (k *Kube) Builder() *resource.Builder {
	return resource.NewBuilder(k).Unstructured().ContinueOnError().Flatten()
}

// Unreachable says of an error in finding the cluster what to do about it.
func Unreachable(err error) error {
	if err == nil {
		return nil
	}
	return &cli.HintedError{What: fmt.Errorf("finding the cluster: %w", err), Hint: "check the kubeconfig, or name another with --kubeconfig or --context"}
}

// FieldManager is the name under which the plugin changes objects of a cluster.
const FieldManager = "kubectl-oke_sign"
