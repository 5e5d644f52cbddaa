package connect

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
)

// ClusterFlag names an OKE cluster.
type ClusterFlag struct{ OCID string }

// Bind adds --cluster.
func (f *ClusterFlag) Bind(flags *pflag.FlagSet) {
	flags.StringVar(&f.OCID, "cluster", "", "`OCID` of the OKE cluster. Default: the cluster of the kubeconfig context.")
}

// Find returns the cluster of --cluster, or of the kubeconfig context. A kubeconfig of
// OKE has the OCID among the arguments of the command that gets tokens.
func (f *ClusterFlag) Find(s *Session) (okecluster.ID, error) {
	const hint = "name it with --cluster OCID"
	if f.OCID != "" {
		id, err := okecluster.ParseID(f.OCID)
		if err != nil {
			return id, cli.Usage("--cluster: "+err.Error(), "it begins with ocid1.cluster.")
		}
		return id, nil
	}
	name, err := s.Kube.ContextName()
	if err != nil {
		return okecluster.ID{}, err
	}
	raw, err := s.Kube.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return okecluster.ID{}, Unreachable(err)
	}
	if context := raw.Contexts[name]; context != nil {
		if user := raw.AuthInfos[context.AuthInfo]; user != nil && user.Exec != nil {
			for i, arg := range user.Exec.Args {
				ocid, found := strings.CutPrefix(arg, "--cluster-id=")
				if arg == "--cluster-id" && i+1 < len(user.Exec.Args) {
					ocid, found = user.Exec.Args[i+1], true
				}
				if !found {
					continue
				}
				id, err := okecluster.ParseID(ocid)
				if err != nil {
					return id, cli.Usage(fmt.Sprintf("context %q: %v", name, err), hint)
				}
				return id, nil
			}
		}
	}
	if !s.Kube.names() {
		return okecluster.ID{}, cli.Usage("--cluster is missing, and there is no kubeconfig", hint)
	}
	return okecluster.ID{}, cli.Usage("--cluster is missing, and the kubeconfig "+InContext(name)+" does not say which OKE cluster it is", hint)
}
