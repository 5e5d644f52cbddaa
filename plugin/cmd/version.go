package cmd

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
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

func newVersion(g *global, version string) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print which build this is",
		Example: `  kubectl oke-sign version
  kubectl oke-sign version -o json`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if err := out.validate(); err != nil {
				return err
			}
			v := build(version)
			return out.print(g.streams.Out, data{
				value:   v,
				columns: []column{{name: "version"}, {name: "commit"}, {name: "date", wide: true}, {name: "go"}, {name: "platform"}},
				blocks:  []block{{rows: [][]string{{v.Version, cmp.Or(v.shortCommit(), "unknown"), cmp.Or(v.Date, "unknown"), v.Go, v.Platform}}}},
				names:   []string{v.Version},
			})
		},
	}
	out.bind(cmd.Flags())
	return cmd
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
