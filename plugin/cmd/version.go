package cmd

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
)

// versionInfo says which build this is.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Date     string `json:"date,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a work tree with changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// versions are those of everything that has to fit together.
type versions struct {
	versionInfo                  // of the client
	Cluster     *clusterVersions `json:"cluster,omitempty"`
	Skew        []string         `json:"skew,omitempty"` // what does not fit
}

type versionOptions struct {
	*connect.Session
	client  bool
	version string
	out     cli.Output
}

func newVersion(s *connect.Session, version string) *cobra.Command {
	o := &versionOptions{Session: s, version: version}
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program and of the cluster's parts",
		Long: `Print the version of this program and, if a kubeconfig leads to a cluster, of
the provider, of Gatekeeper and of the ConstraintTemplates there, and say which
versions do not fit. The cluster has ` + clusterTime.String() + ` to answer.`,
		Example: `  kubectl oke-sign version --client
  kubectl oke-sign version -o json`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&o.client, "client", false, "Print this program's version alone, and ask no cluster.")
	o.out.Bind(cmd.Flags())
	return cmd
}

func (o *versionOptions) run(ctx context.Context) error {
	v := versions{versionInfo: build(o.version)}
	rows := [][]string{{"client", v.Version, cmp.Or(v.Date, "unknown"), v.detail()}}
	var failed error
	if !o.client && o.Kube.Leads() {
		ctx, cancel := context.WithTimeout(ctx, clusterTime)
		defer cancel()
		v.Cluster, failed = inCluster(ctx, o.Session)
		for _, c := range v.Cluster.components() {
			rows = append(rows, []string{c.Name, cmp.Or(c.Version, "unknown"), "", c.Detail})
		}
		v.Skew = v.skew()
	}
	out := o.out
	err := out.Print(o.Streams.Out, cli.Document{
		Value:    v,
		Columns:  []cli.Column{{Name: "component"}, {Name: "version"}, {Name: "date", Wide: true}, {Name: "detail"}},
		Sections: []cli.Section{{Rows: rows}},
		Names:    []string{v.Version},
	})
	if err != nil {
		return err
	}
	for _, s := range v.Skew {
		o.Remark("%s", s)
	}
	if failed != nil {
		return &cli.HintedError{What: failed, Hint: "--client asks no cluster"}
	}
	return nil
}

// build is the version that the linker was told, or else what the go command
// recorded: a module's version after `go install`, the commit after `go build`.
func build(version string) versionInfo {
	v := versionInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		v.Version = cmp.Or(v.Version, "unknown")
		return v
	}
	v.Version = cmp.Or(v.Version, info.Main.Version, "unknown")
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Date = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

// String returns the version, and which build it is, in one line.
func (v versionInfo) String() string {
	return fmt.Sprintf("kubectl oke-sign %s (%s)", v.Version, v.detail())
}

func (v versionInfo) detail() string {
	return strings.Join([]string{"commit " + cmp.Or(v.shortCommit(), "unknown"), v.Go, v.Platform}, ", ")
}

func (v versionInfo) shortCommit() string {
	short := v.Commit
	if len(short) > 12 {
		short = short[:12]
	}
	if v.Modified {
		return fmt.Sprintf("%s (modified)", short)
	}
	return short
}
