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
		x := unknown(f.keys.err)
		x.Fix = "kubectl oke-sign keys list shows whether you reach OCI Vault"
		return []finding{x}
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
		list := "kubectl oke-sign keys list -o wide shows which keys there are"
		switch {
		case k.err != nil:
			x := unknown(fmt.Errorf("%s: %w", name, k.err))
			x.Fix = list
			found = append(found, x)
		case k.realm != "":
			found = append(found, warns(list, "%s lies in another realm than %s, and no principal reaches both: what it signed is refused", name, k.realm))
		case k.key.Missing:
			found = append(found, warns(list, "%s is not found, or you may not read it: what it signed is refused if the provider may not either", name))
		case state.State != verdict.Enabled:
			found = append(found, warns("enable it in OCI Vault, or take it off the list", "%s is %s: what it signed is refused", name, cli.Clip(state.State, 40)))
		case state.Algorithm != "RSA":
			found = append(found, warns("take it off the list", "%s is an %s key, which signs no images", name, cli.Clip(state.Algorithm, 20)))
		case enabled == 0:
			found = append(found, warns("enable a version in OCI Vault", "%s has no enabled version: what it signed is refused", name))
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
