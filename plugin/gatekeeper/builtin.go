package gatekeeper

import (
	"context"
	"errors"
	"sync"

	"github.com/open-policy-agent/frameworks/constraint/pkg/client/drivers/rego"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A Rego driver registers its external_data for the whole process. With two engines,
// the first would send its questions to the second's providers, and read the
// second's cache. This package therefore takes each driver's function out of OPA's
// table again. An evaluation finds its function by its context.

// evaluation protects OPA's table while Rego is compiled or evaluated. OPA's state
// is global, so the lock is global too.
var evaluation sync.RWMutex

// builtin is one driver's external_data.
type builtin struct{ call topdown.BuiltinFunc }

type builtinKey struct{}

// within returns a context in which external_data is b.
func (b builtin) within(ctx context.Context) context.Context {
	return context.WithValue(ctx, builtinKey{}, b)
}

const builtinName = "external_data"

func newDriver(args []rego.Arg) (*rego.Driver, builtin, error) {
	evaluation.Lock()
	defer evaluation.Unlock()
	driver, err := rego.New(args...)
	if err != nil {
		return nil, builtin{}, err
	}
	b := builtin{topdown.GetBuiltin(builtinName)}
	if b.call == nil {
		return nil, builtin{}, errors.New("the driver has registered no external_data")
	}
	topdown.RegisterBuiltinFunc(builtinName, dispatch)
	return driver, b, nil
}

// answering returns an external_data that calls ask.
func answering(ask func(context.Context, string, []string) (map[string]any, error)) builtin {
	return builtin{func(bctx topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) error {
		var request externaldata.RegoRequest
		if err := ast.As(args[0].Value, &request); err != nil {
			return err
		}
		answers, err := ask(bctx.Context, request.ProviderName, request.Keys)
		response := externaldata.Response{Items: []externaldata.Item{}}
		if err != nil {
			response.SystemError = err.Error()
		}
		for _, key := range request.Keys {
			if value, ok := answers[key]; ok {
				response.Items = append(response.Items, externaldata.Item{Key: key, Value: value})
			}
		}
		term, err := externaldata.PrepareRegoResponse(externaldata.NewRegoResponse(0, &externaldata.ProviderResponse{Response: response}))
		if err != nil {
			return err
		}
		return iter(term)
	}}
}

func dispatch(bctx topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) error {
	b, ok := bctx.Context.Value(builtinKey{}).(builtin)
	if !ok {
		return errors.New("external_data was called outside an engine")
	}
	return b.call(bctx, args, iter)
}
