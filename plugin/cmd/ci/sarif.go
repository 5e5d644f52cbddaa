package ci

import (
	"cmp"
	"slices"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/sarif"
	"github.com/oke-sign/oke-sign/plugin/simulate"
)

// finishSARIF prints the violations, and makes of the results what finish does.
func (o *checkOptions) finishSARIF(results []cli.Result) error {
	var rules []sarif.Rule
	var found []sarif.Result
	for _, r := range results {
		v, _ := r.Value.(simulate.ObjectResult)
		for _, x := range v.Violations {
			rule := sarif.Rule{ID: x.Kind + "/" + cmp.Or(x.Reason, "violation")}
			if !slices.Contains(rules, rule) {
				rules = append(rules, rule)
			}
			found = append(found, sarif.Result{
				RuleID:    rule.ID,
				Level:     map[string]string{"deny": "error", "warn": "warning", "dryrun": "note"}[x.Action],
				Message:   sarif.Message{Text: r.Target + ": " + x.Message},
				Locations: []sarif.Location{sarif.At(v.File, x.Line, r.Target)},
			})
		}
	}
	return o.FinishDocument(sarif.New("kubectl oke-sign check", rules, found, cli.Failures(results)), results)
}
