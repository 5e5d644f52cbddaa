package simulate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// ErrNotAsked is the system error of a simulation without a source of verdicts.
var ErrNotAsked = errors.New("nobody was asked; add --live, --verdicts FILE or --provider URL")

// Answer is a question with its answer or its error.
type Answer struct {
	Question question
	Value    any // a verdict.Verdict, or a vulnreport.Report
	Err      error
}

// Asker answers questions of constraints, in their order. Each answer has its own error.
type Asker func(ctx context.Context, questions []string) ([]Answer, error)

// OCI returns an Asker that asks OCI as the provider does, with the user's identity.
func OCI(s *connect.Session) Asker {
	return func(ctx context.Context, questions []string) ([]Answer, error) { return askOCI(ctx, s, questions) }
}

func askOCI(ctx context.Context, s *connect.Session, questions []string) ([]Answer, error) {
	if len(questions) == 0 {
		return nil, nil // without a question, nobody has to sign in
	}
	cloud, err := s.ConnectImages(ctx)
	if err != nil {
		return nil, err
	}
	decides, scans := cloud.Checker(), cloud.Scans()
	answers := make([]Answer, len(questions))
	done := s.Progress("asked about %d of %d images", len(questions))
	group := cli.Limited()
	for i, key := range questions {
		group.Go(func() error {
			defer done()
			answers[i] = askOne(ctx, decides, scans, key)
			answers[i].Err = cli.StopCause(ctx, answers[i].Err)
			return nil
		})
	}
	_ = group.Wait() // each answer has its own error
	return answers, nil
}

func askOne(ctx context.Context, decides *checker.Checker, scans *vulnreport.Checker, key string) Answer {
	var a Answer
	if a.Err = json.Unmarshal([]byte(key), &a.Question); a.Err != nil {
		return a
	}
	allowed, err := keyring.ParseIDs(a.Question.Keys)
	if err != nil {
		a.Err = err
		return a
	}
	ref, err := image.Parse(a.Question.Image)
	if err != nil {
		a.Err = err
		return a
	}
	if ctx.Err() != nil {
		a.Err = ctx.Err()
		return a
	}
	if a.Question.Keys == nil {
		a.Value, a.Err = scans.Check(ctx, ref)
	} else {
		a.Value, a.Err = keyring.Check(ctx, decides, ref, allowed)
	}
	return a
}

// Within returns an Asker that asks for a limited time. If nobody answers at all, each
// answer has that error, so that results which need no answer are known. A limit of 0 is
// none.
func Within(limit time.Duration, ask Asker) Asker {
	return func(ctx context.Context, questions []string) ([]Answer, error) {
		within := ctx
		if limit > 0 {
			var cancel context.CancelFunc
			within, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		answers, err := ask(within, questions)
		if err == nil || ctx.Err() != nil {
			return answers, err
		}
		answers = make([]Answer, len(questions))
		for i, key := range questions {
			answers[i].Err = cmp.Or(json.Unmarshal([]byte(key), &answers[i].Question), cli.SharedError(err))
		}
		return answers, nil
	}
}

// AskNow returns a provider that answers like ask if the Provider in the cluster can answer
// now. If live is nil, it always does.
func AskNow(live *enforcement.Live, ask func(context.Context, string, []string) (map[string]any, error)) func(context.Context, string, []string) (map[string]any, error) {
	if live == nil {
		return ask
	}
	return func(ctx context.Context, provider string, questions []string) (map[string]any, error) {
		switch h := live.Providers[provider]; {
		case h.Down != "":
			return nil, errors.New(h.Down)
		case h.Err != nil:
			return nil, h.Err
		}
		return ask(ctx, provider, questions)
	}
}

// FromAnswers returns a provider that gives these answers. The errors of answers become
// its system error, as with the provider in a cluster.
func FromAnswers(answers []Answer) func(context.Context, string, []string) (map[string]any, error) {
	values, failed := make(map[string]any), make(map[string]error)
	for _, a := range answers {
		if a.Err != nil {
			failed[a.Question.key()] = a.Err
		} else {
			values[a.Question.key()] = a.Value
		}
	}
	return func(_ context.Context, _ string, questions []string) (map[string]any, error) {
		var errs []error
		for _, q := range questions {
			errs = append(errs, failed[q])
		}
		return values, errors.Join(errs...)
	}
}
