package connect

import (
	"context"
	"strings"

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
	const setUp = "oci setup config, of Oracle's CLI, makes it; --config-file names another"
	switch s.who.Kind {
	case "":
	case ociauth.KindInstanceOBOUser:
		return nil, &cli.HintedError{What: err, Hint: "Cloud Shell has one at /etc/oci/config, which OCI_CLI_CONFIG_FILE or --config-file names"}
	default:
		return nil, &cli.HintedError{What: err, Hint: setUp}
	}
	var hints []string
	for _, seen := range ociauth.Surroundings(ctx, s.who, s.getenv) {
		hints = append(hints, "this looks like "+seen.Place+": "+s.again(seen.Flags))
	}
	hints = append(hints, setUp)
	return nil, &cli.HintedError{What: err, Hint: strings.Join(hints, "\n")}
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
