package doctor

import (
	"cmp"
	"fmt"
	"time"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

func checkKeys(f *facts) []finding {
	if f.keys.err != nil {
		return []finding{unknownOr("kubectl oke-sign keys list shows whether you reach OCI Vault", f.keys.err)}
	}
	var found []finding
	for _, k := range f.keys.is {
		state := k.key.Decisive()
		enabled := 0
		for _, s := range state.Versions {
			if s == verdict.Enabled {
				enabled++
			}
		}
		name := cli.Clip(cmp.Or(k.key.Name, signature.Short(k.id)), 60)
		list := "kubectl oke-sign keys list -o wide shows all keys"
		remove := "kubectl oke-sign policy remove-key " + cli.Clip(k.id, 255)
		switch {
		case k.err != nil:
			found = append(found, unknownOr(list, fmt.Errorf("%s: %w", name, k.err)))
		case k.realm != "":
			found = append(found, warns(list, "%s is in another realm than %s, and no identity reaches both: images that it signed are denied", name, k.realm))
		case k.key.Missing:
			found = append(found, warns(list, "%s does not exist, or you may not read it: images that it signed are denied unless the provider may read it", name))
		case state.State != verdict.Enabled:
			found = append(found, warns("enable it in OCI Vault; or "+remove, "%s is %s: images that it signed are denied", name, cli.Clip(state.State, 40)))
		case state.Algorithm != "RSA":
			found = append(found, warns(remove, "%s is an %s key, which cannot sign images", name, cli.Clip(state.Algorithm, 20)))
		case enabled == 0:
			found = append(found, warns("enable a version in OCI Vault", "%s has no enabled version: images that it signed are denied", name))
		default:
			found = append(found, holds("%s", name))
		}
	}
	return found
}

func checkClock(f *facts) []finding {
	if f.apiTime.err != nil {
		return []finding{unknown(f.apiTime.err)}
	}
	skew := f.now.Sub(f.apiTime.is).Abs().Round(time.Second)
	if skew > 2*time.Minute {
		return []finding{warns("set the clocks: timedatectl", "this machine and the API server differ by %s: OCI refuses requests that are 5 minutes off, and break-glass ends by the cluster's clock", skew)}
	}
	return []finding{holds("this machine and the API server agree")}
}
