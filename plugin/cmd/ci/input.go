package ci

import (
	"cmp"
	"context"

	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/plugin/workload"
)

// inputFlags name the manifests and the constraints to judge them by: constraints
// from files, or those that kubectl oke-sign policy set would make for the keys.
type inputFlags struct {
	manifests workload.ManifestFlags
	keys      []string
}

func (f *inputFlags) bind(flags *pflag.FlagSet) {
	f.manifests.Bind(flags)
	keyring.BindKeys(flags, &f.keys, "of a policy as policy set --key makes it, instead of constraints")
}

func (f *inputFlags) validate(args []string) error {
	return cmp.Or(f.manifests.Validate(args), keyring.CheckKeys(f.keys, constraint.MaxKeys))
}

// read reads the manifests and the constraints.
func (f *inputFlags) read(ctx context.Context, s *connect.Session) (workload.Input, error) {
	if len(f.keys) == 0 {
		return f.manifests.Read(ctx, s, nil)
	}
	return f.manifests.Read(ctx, s, func(ctx context.Context) ([]workload.Document, error) {
		ids, err := keyring.FindAll(ctx, s, nil, f.keys)
		if err != nil {
			return nil, err
		}
		p := constraint.Default()
		for _, id := range ids {
			p.Keys = append(p.Keys, id.String())
		}
		var made []workload.Document
		for _, object := range p.Constraints() {
			made = append(made, workload.Document{File: "--key", Object: object})
		}
		return made, nil
	})
}
