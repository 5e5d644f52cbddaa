package policies_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper/gatekeepertest"
	"github.com/oke-sign/oke-sign/policies"
)

var (
	modelCases = flag.Int("model.cases", 20000, "how many random cases TestModel compares")
	modelSeed  = flag.Uint64("model.seed", 1, "what TestModel's cases are made from")
)

// perQuery is the number of cases in one evaluation. Preparing a query costs more than
// evaluating a case.
const perQuery = 200

// TestModel compares the shipped policies with their specification, on random objects,
// parameters and answers. It evaluates the Rego for all cases.
func TestModel(t *testing.T) {
	var mu sync.Mutex
	answers := map[string]modelAnswers{} // by the provider's name, which identifies the case
	external := func(_ rego.BuiltinContext, request *ast.Term) (*ast.Term, error) {
		var asked struct {
			Provider string
			Keys     []string
		}
		if err := ast.As(request.Value, &asked); err != nil {
			return nil, err
		}
		mu.Lock()
		m := answers[asked.Provider]
		mu.Unlock()
		value, err := ast.InterfaceToValue(m.toRego(asked.Keys))
		return ast.NewTerm(value), err
	}
	queries := map[string]rego.PreparedEvalQuery{}
	for _, kind := range modelKinds {
		queries[kind] = shipped(t, kind, external)
	}
	seen := map[string]int{}
	batch := func(from int) {
		cases := make([]modelCase, 0, perQuery)
		byKind := map[string][]any{}
		for i := from; i < min(from+perQuery, *modelCases); i++ {
			c := newCase(rand.New(rand.NewPCG(*modelSeed, uint64(i))), i)
			cases = append(cases, c)
			byKind[c.kind] = append(byKind[c.kind], c.input())
		}
		mu.Lock()
		for _, c := range cases {
			answers[c.provider] = c.answers
		}
		mu.Unlock()
		got := map[string][][]string{}
		for kind, inputs := range byKind {
			var err error
			if got[kind], err = evaluate(t.Context(), queries[kind], inputs); err != nil {
				t.Errorf("cases %d and after: %v", from, err)
				return
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, c := range cases {
			want := c.want()
			seen[c.kind+fmt.Sprint(len(want) == 0)]++
			if diff := cmp.Diff(want, got[c.kind][0]); diff != "" {
				t.Errorf("-model.seed %d, case %d: the policy differs from the specification:\n%s\n%s", *modelSeed, c.number, diff, c)
			}
			got[c.kind] = got[c.kind][1:]
			delete(answers, c.provider)
		}
	}
	var workers errgroup.Group
	workers.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < *modelCases && !t.Failed(); from += perQuery {
		if from > 0 && from%100_000 == 0 {
			t.Logf("%d cases, no difference so far", from)
		}
		workers.Go(func() error {
			batch(from)
			return nil
		})
	}
	_ = workers.Wait() // Failures are reported to t.
	for _, kind := range modelKinds {
		for _, admitted := range []string{"true", "false"} {
			if n := seen[kind+admitted]; n < *modelCases/100 {
				t.Errorf("only %d cases of %s in which all is admitted is %s, too few to prove anything", n, kind, admitted)
			}
		}
	}
	t.Logf("cases: %v", seen)
}

// TestModelThroughTheEngine evaluates some of the cases in Gatekeeper's engine, with a
// provider behind TLS.
func TestModelThroughTheEngine(t *testing.T) {
	p := gatekeepertest.Start(t, nil)
	for i := range min(*modelCases/40, 500) {
		c := newCase(rand.New(rand.NewPCG(*modelSeed, uint64(i))), i)
		if !c.valid {
			continue // The API server would reject it.
		}
		p.Answer(c.answers.toWire)
		e := modelEngine(t, p, c)
		d, err := e.Review(t.Context(), c.request())
		e.Close()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want(), slices.Compact(reasons(d.Denied))); diff != "" {
			t.Fatalf("-model.seed %d, case %d: the engine differs from the specification:\n%s\n%s", *modelSeed, c.number, diff, c)
		}
	}
}

var modelKinds = policies.Kinds()

// shipped returns the template of a kind as a query over a list of inputs. The query returns
// the places and reasons of each input's violations.
func shipped(t *testing.T, kind string, external rego.Builtin1) rego.PreparedEvalQuery {
	t.Helper()
	name := strings.ToLower(kind)
	object, libs := template(t, folder, name+"/template.yaml")
	targets, _, _ := unstructured.NestedSlice(object, "spec", "targets")
	source := targets[0].(map[string]any)["code"].([]any)[0].(map[string]any)["source"].(map[string]any)
	options := []func(*rego.Rego){
		rego.SetRegoVersion(ast.RegoV1),
		rego.Query("[{concat(\": \", array.slice(split(v.msg, \": \"), 0, 2)) | some v in data." + name + ".violation with input as one} | some one in input]"),
		rego.Module(name, source["rego"].(string)),
		rego.Function1(&rego.Function{Name: "answers_of_the_case", Decl: externalData.Decl, Memoize: true}, external),
	}
	for lib, text := range libs {
		// Engines in the same process register the name external_data permanently.
		options = append(options, rego.Module(lib, strings.Replace(text, "external_data(", "answers_of_the_case(", 1)))
	}
	query, err := rego.New(options...).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return query
}

func evaluate(ctx context.Context, query rego.PreparedEvalQuery, inputs []any) ([][]string, error) {
	result, err := query.Eval(ctx, rego.EvalInput(inputs))
	if err != nil {
		return nil, err
	}
	var all [][]string
	for _, set := range result[0].Expressions[0].Value.([]any) {
		got := []string{}
		for _, reason := range set.([]any) {
			got = append(got, reason.(string))
		}
		slices.Sort(got)
		all = append(all, got)
	}
	return all, nil
}

func modelEngine(t *testing.T, p *gatekeepertest.Provider, c modelCase) *gatekeeper.Engine {
	t.Helper()
	e, err := gatekeeper.New(gatekeeper.Config{Certificate: p.Certificate, Key: p.Key, Memory: -1})
	if err != nil {
		t.Fatal(err)
	}
	text, err := fs.ReadFile(folder, strings.ToLower(c.kind)+"/template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parameters, err := json.Marshal(c.parameters)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		e.AddTemplate(t.Context(), text),
		e.AddConstraint(t.Context(), []byte(constraint(c.kind, "c", "deny", string(parameters)))),
		e.AddProvider(gatekeeper.Provider{Name: c.provider, URL: p.URL, CABundle: p.CA, Timeout: 5 * time.Second}),
	} {
		if err != nil {
			t.Fatalf("case %d: %v", c.number, err)
		}
	}
	return e
}
