package checker

import (
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/oke-sign/oke-sign/provider/verdict"
)

// cachedEvidence is evidence in the little room that a hundred thousand of them
// need, and how long it may be cached.
type cachedEvidence struct {
	proofs []compactProof
	other  *verdict.Evidence // instead of proofs, if there is more to it
	at     time.Time         // when its gathering began
	ttl    time.Duration
}

// compactProof is a finding that says Signed. What many images have in common is
// held once; nothing in it shares memory with OCI's answer.
type compactProof struct {
	by        unique.Handle[version]
	algorithm unique.Handle[string]
	signature string
	signedAt  time.Time
}

// compact makes evidence small. Where all findings are proofs, Decide looks at
// nothing else: its first allowed proof decides, and if none counts, the first
// reason of a proof that does not. TestCompactEvidenceDecidesTheSame holds it to
// that.
func compact(ev verdict.Evidence, at time.Time, ttl time.Duration) cachedEvidence {
	e := cachedEvidence{at: at, ttl: ttl}
	more := func(f verdict.Finding) bool { return f.Reason != verdict.Signed || f.Detail != "" }
	if len(ev.Findings) == 0 || ev.Truncated || slices.ContainsFunc(ev.Findings, more) {
		e.other = &ev
		return e
	}
	e.proofs = make([]compactProof, len(ev.Findings))
	for i, f := range ev.Findings {
		e.proofs[i] = compactProof{unique.Make(version{f.Key, f.Version}), unique.Make(f.Algorithm), strings.Clone(f.Signature), f.SignedAt}
	}
	return e
}

// evidence is what was made compact. It puts the findings into buf, if they fit.
func (e cachedEvidence) evidence(buf []verdict.Finding) verdict.Evidence {
	if e.other != nil {
		return *e.other
	}
	ev := verdict.Evidence{Findings: buf[:0], Records: len(e.proofs)}
	for _, p := range e.proofs {
		by := p.by.Value()
		ev.Findings = append(ev.Findings, verdict.Finding{
			Reason: verdict.Signed, Key: by.key, Version: by.id,
			Signature: p.signature, Algorithm: p.algorithm.Value(), SignedAt: p.signedAt,
		})
	}
	return ev
}
