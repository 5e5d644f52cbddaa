package cmd

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/resource"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/cmd/iam"
	"github.com/oke-sign/oke-sign/plugin/cmd/policy"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// kubectlCompletion is the script that kubectl runs to complete a plugin's command line.
const kubectlCompletion = `#!/bin/sh
# kubectl_complete-oke_sign: completes "kubectl oke-sign" for kubectl.
exec kubectl oke-sign __complete "$@"
`

func newCompletion(s *connect.Session) *cobra.Command {
	shells := map[string]func(root *cobra.Command, w io.Writer) error{
		"bash":       func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"zsh":        (*cobra.Command).GenZshCompletion,
		"fish":       func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
		"powershell": (*cobra.Command).GenPowerShellCompletionWithDesc,
		"kubectl": func(_ *cobra.Command, w io.Writer) error {
			_, err := io.WriteString(w, kubectlCompletion)
			return err
		},
	}
	names := []string{"bash", "zsh", "fish", "powershell", "kubectl"}
	return &cobra.Command{
		Use:   "completion (bash|zsh|fish|powershell|kubectl)",
		Short: "Print a shell completion script",
		Long: `Print a script that completes command lines, with keys, images and workloads.

The script for kubectl completes "kubectl oke-sign" in every shell that
completes kubectl. Put it on the PATH as kubectl_complete-oke_sign, and make it
executable. A link of that name to this program does the same. The scripts for
shells are for the program's own name, kubectl-oke_sign.`,
		Example: `  kubectl oke-sign completion kubectl > ~/bin/kubectl_complete-oke_sign
  chmod +x ~/bin/kubectl_complete-oke_sign

  source <(kubectl-oke_sign completion bash)`,
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || shells[args[0]] == nil {
				return cli.Usage("kubectl oke-sign completion takes one shell", "name one of "+strings.Join(names, ", "))
			}
			if err := shells[args[0]](cmd.Root(), s.Streams.Out); err != nil {
				return fmt.Errorf("writing the output: %w", err)
			}
			return nil
		},
	}
}

// completionTime bounds requests of completion to OCI and the cluster: the user waits
// in the middle of a line.
const completionTime = 2 * time.Second

type completer = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective)

// completion finds what completes flags and arguments.
type completion struct{ *connect.Session }

// add teaches all commands below to complete what flags and arguments
// of their names take. A failed request gives no
// candidates and prints nothing.
func (g completion) add(cmd *cobra.Command) {
	for _, below := range cmd.Commands() {
		g.add(below)
	}
	path := strings.TrimPrefix(cmd.CommandPath(), cmd.Root().CommandPath()+" ")
	flags := map[string]completer{
		"output": fixed(cli.Formats...), "auth": fixed(ociauth.Kinds()...), "context": g.found(g.contexts), "namespace": g.found(g.namespaceNames),
		"region": fixed(regionNames()...), "algorithm": fixed(string(signature.SHA224), string(signature.SHA256), string(signature.SHA384), string(signature.SHA512)),
		"protection": fixed("HSM", "SOFTWARE"), "bits": fixed("2048", "3072", "4096"), "color": fixed("auto", "always", "never"), "dry-run": fixed("none", "client", "server"),
		"key": g.keyWords, "vault": cobra.NoFileCompletions,
		"fail-on": fixed("LOW", "MEDIUM", "HIGH", "CRITICAL"), "unknown": fixed(enforcement.DenyUnknown, enforcement.AllowUnknown),
		"mode": fixed("deny", "warn", "dryrun"), "digests": fixed("All", "OCIRegistry", "None"), "other-registries": fixed("Deny", "Allow"),
		"namespaces": g.found(g.namespaceNames), "exclude-namespaces": g.found(g.namespaceNames),
	}
	switch path {
	case "scan results":
		flags["output"] = fixed(cli.FormatsAnd("sarif")...)
	case "check":
		flags["output"] = fixed(cli.FormatsAnd("sarif", "junit", "codequality")...)
	case "iam":
		flags["output"], flags["for"] = fixed(cli.FormatsAnd("terraform")...), fixed(iam.Environments...)
		for _, name := range []string{"cluster", "workload", "signers", "dynamic-group", "runs-in", "project", "branch", "issuer", "audience", "repository"} {
			flags[name] = cobra.NoFileCompletions
		}
	}
	for name, complete := range flags {
		if f := cmd.LocalNonPersistentFlags().Lookup(name); f != nil || cmd == cmd.Root() && cmd.PersistentFlags().Lookup(name) != nil {
			_ = cmd.RegisterFlagCompletionFunc(name, complete) // it fails for flags that are not there
		}
	}
	switch {
	case path == "keys describe" || path == "keys use" || path == "policy add-key":
		cmd.ValidArgsFunction = g.found(g.keyNames)
	case path == "policy remove-key":
		cmd.ValidArgsFunction = g.found(g.policyKeys)
	case path == "break-glass" || path == "break-glass end":
		cmd.ValidArgsFunction = g.objectWords
	case path == "explain" || cmd.Flags().Lookup("filename") != nil && cmd.Flags().Lookup("selector") != nil:
		cmd.ValidArgsFunction = g.targetWords
	case cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 && !cmd.HasSubCommands():
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
}

func fixed(words ...string) completer {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// found completes with what look finds, none twice.
func (g completion) found(look func(ctx context.Context) ([]string, error)) completer {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		found, err := look(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		// A flag may take several values, with commas between them.
		done, last := "", word
		if i := strings.LastIndexByte(word, ','); i >= 0 {
			done, last = word[:i+1], word[i+1:]
		}
		var candidates []string
		for _, f := range found {
			name, _, _ := strings.Cut(f, "\t")
			if name != "" && strings.HasPrefix(name, last) && !slices.Contains(args, name) && !strings.Contains(done, name+",") {
				candidates = append(candidates, done+f)
			}
		}
		return candidates, cobra.ShellCompDirectiveNoFileComp
	}
}

func regionNames() []string {
	var names []string
	for _, r := range image.Regions() {
		names = append(names, r.ID())
	}
	return names
}

func (g completion) contexts(context.Context) ([]string, error) {
	raw, err := g.Kube.ToRawKubeConfigLoader().RawConfig()
	var names []string
	for name := range raw.Contexts {
		names = append(names, cli.Printable(name))
	}
	slices.Sort(names)
	return names, err
}

// maxCandidates is how many objects of a kind are read for completion.
const maxCandidates = 500

func (g completion) namespaceNames(ctx context.Context) ([]string, error) {
	client, err := g.Kube.Typed()
	if err != nil || !g.Kube.Leads() {
		return nil, err
	}
	list, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{Limit: maxCandidates})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range list.Items {
		names = append(names, n.Name)
	}
	return names, nil
}

// policyKeys are the keys of the cluster's policy, usable or not, by the names that
// they are known by.
func (g completion) policyKeys(ctx context.Context) ([]string, error) {
	p, err := policy.ReadPolicy(ctx, g.Session)
	if err != nil || p.Policy == nil {
		return nil, err
	}
	return g.keysThat(ctx, func(k keyring.FoundKey) bool { return slices.Contains(p.Policy.Keys, k.ID.String()) }, named)
}

// candidateKeys are the keys that can sign images.
func (g completion) candidateKeys(ctx context.Context, show func(keyring.FoundKey) string) ([]string, error) {
	return g.keysThat(ctx, func(k keyring.FoundKey) bool { return keyring.WhyUseless(k.Key) == "" }, show)
}

func (g completion) keysThat(ctx context.Context, wanted func(keyring.FoundKey) bool, show func(keyring.FoundKey) string) ([]string, error) {
	c, err := g.Connect(ctx)
	if err != nil {
		return nil, err
	}
	s := keyring.NewInventory(ctx, g.Session, c)
	s.List(ctx)
	var words []string
	for _, k := range s.Keys {
		if wanted(k) {
			words = append(words, show(k))
		}
	}
	return words, nil
}

func (g completion) keyNames(ctx context.Context) ([]string, error) {
	return g.candidateKeys(ctx, named)
}

func named(k keyring.FoundKey) string { return word(k.Name) + "\tvault " + cli.Clip(k.Vault.Name, 60) }

// keyWords completes keys by name, and by OCID once an OCID is begun.
func (g completion) keyWords(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if strings.HasPrefix(word[strings.LastIndexByte(word, ',')+1:], "ocid") {
		return g.found(g.keyOCIDs)(cmd, args, word)
	}
	return g.found(g.keyNames)(cmd, args, word)
}

func (g completion) keyOCIDs(ctx context.Context) ([]string, error) {
	return g.candidateKeys(ctx, func(k keyring.FoundKey) string { return k.ID.String() + "\t" + cli.Clip(k.Name, 60) })
}

// word is a name as a word of a command line: one with anything odd in it would
// not be completed to itself.
func word(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("'\"\\$`;&|<>(){}*?[]!#~", r) }) {
		return ""
	}
	return s
}

// targetTypes are the types of objects whose names are completed.
var targetTypes = []string{"pod", "deployment", "statefulset", "daemonset", "job", "cronjob", "replicaset"}

// targetWords completes TYPE/NAME with objects of the cluster, and images with
// those of OCI Registry that its Pods and workloads name.
func (g completion) targetWords(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	words, directive := g.objectWords(cmd, args, word)
	if strings.Contains(word, ".") || !strings.Contains(word, "/") { // a host, or what may become one
		images, _ := g.found(g.imagesNamed)(cmd, args, word)
		words = append(words, images...)
	}
	return words, directive
}

// objectWords completes TYPE/NAME with objects of the cluster.
func (g completion) objectWords(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	const keep = cobra.ShellCompDirectiveNoFileComp
	kind, _, named := strings.Cut(word, "/")
	switch {
	case named && slices.Contains(targetTypes, strings.TrimSuffix(strings.ToLower(kind), "s")):
		return g.found(func(ctx context.Context) ([]string, error) { return g.objectNames(ctx, kind) })(cmd, args, word)
	case named || strings.Contains(word, "."):
		return nil, keep
	}
	var words []string
	for _, t := range targetTypes {
		if strings.HasPrefix(t, strings.ToLower(word)) {
			words = append(words, t+"/")
		}
	}
	return words, keep | cobra.ShellCompDirectiveNoSpace
}

func (g completion) objectNames(ctx context.Context, kind string) ([]string, error) {
	var names []string
	err := g.visit(ctx, kind, func(o *unstructured.Unstructured) { names = append(names, kind+"/"+o.GetName()) })
	return names, err
}

// imagesNamed are the images of OCI Registry in objects of the cluster. Which of them
// may not be listed does not matter as long as others may.
func (g completion) imagesNamed(ctx context.Context) ([]string, error) {
	var images []string
	err := g.visit(ctx, "pods,deployments,statefulsets,daemonsets,jobs,cronjobs", func(o *unstructured.Unstructured) {
		found, err := manifest.Images(o)
		if err != nil {
			return
		}
		for _, i := range found {
			if _, err := image.Parse(i.Ref); err == nil && !slices.Contains(images, i.Ref) {
				images = append(images, i.Ref)
			}
		}
	})
	if len(images) > 0 {
		return images, nil
	}
	return nil, err
}

// visit reads the first objects of a type, in the namespace that is worked in.
func (g completion) visit(ctx context.Context, kind string, do func(*unstructured.Unstructured)) error {
	namespace, err := g.Kube.CurrentNamespace()
	if err != nil || !g.Kube.Leads() {
		return err
	}
	done := make(chan error, 1)
	var objects []*unstructured.Unstructured
	go func() { // the builder knows no deadline
		result := g.Kube.Builder().NamespaceParam(namespace).DefaultNamespace().ResourceTypeOrNameArgs(true, kind).RequestChunksOf(maxCandidates).Do()
		done <- result.Visit(func(info *resource.Info, err error) error {
			if err != nil {
				return err
			}
			if o, ok := info.Object.(*unstructured.Unstructured); ok && len(objects) < maxCandidates {
				objects = append(objects, o)
			}
			return nil
		})
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err = <-done:
	}
	for _, o := range objects {
		do(o)
	}
	return err
}
