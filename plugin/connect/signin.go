package connect

import (
	"context"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
)

// signIn signs in to OCI. If the user has not said how, and there is no
// configuration file, the error guesses the place and has the command to type.
func (s *Session) signIn(ctx context.Context) (*oci.Client, error) {
	who, err := ociauth.SignIn(ctx, s.who)
	if !ociauth.IsNoConfig(err) {
		return who, err
	}
	switch s.who.Kind {
	case "":
	case ociauth.KindInstanceOBOUser:
		return nil, &cli.HintedError{What: err, Hint: "Cloud Shell has one at /etc/oci/config, which OCI_CLI_CONFIG_FILE or --config-file names"}
	default:
		return nil, &cli.HintedError{What: err, Hint: setUpOCI}
	}
	var hints []string
	for _, seen := range ociauth.Surroundings(ctx, s.who, s.getenv) {
		hints = append(hints, "this looks like "+seen.Place+": "+s.again(seen.Flags))
	}
	hints = append(hints, setUpOCI)
	return nil, &cli.HintedError{What: err, Hint: strings.Join(hints, "\n")}
}

// Hints for a machine without configuration.
const (
	setUpOCI  = "--config-file names another; Oracle's command line makes the file: oci setup config"
	setUpKube = "name a kubeconfig with --kubeconfig or KUBECONFIG; for an OKE cluster, make one: oci ce cluster create-kubeconfig --cluster-id OCID"
)

// FirstSteps returns the commands to begin with on a machine without kubeconfig and
// without a way to sign in to OCI. With either, it returns "".
func (s *Session) FirstSteps(ctx context.Context) string {
	if s.who.Kind != "" || s.Kube.Leads() {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second) // a profile may ask the instance
	defer cancel()
	if _, err := ociauth.SignIn(ctx, s.who); !ociauth.IsNoConfig(err) {
		return ""
	}
	return `Nothing is set up on this machine yet. Begin with:
  oci setup config                                          # sign in to OCI, with Oracle's command line
  kubectl oke-sign keys list                                # which keys can sign
  oci ce cluster create-kubeconfig --cluster-id OCID        # reach an OKE cluster
  kubectl oke-sign doctor                                   # what it enforces`
}

// again returns the typed command with more flags.
func (s *Session) again(flags []string) string {
	words := []string{"kubectl", "oke-sign"}
	for _, word := range append(s.Words[:len(s.Words):len(s.Words)], flags...) {
		words = append(words, quote(word))
	}
	return strings.Join(words, " ")
}

// quote makes a word safe for a shell and for a terminal.
func quote(word string) string {
	word = cli.Clip(word, 200)
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@=,+%"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
