package checker

import (
	"slices"
	"strings"
	"time"
	"unique"

	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// cachedEvidence holds findings in little memory, for a cache of a hundred thousand, and
// their TTL.
type cachedEvidence struct {
	proofs []compactProof
	other  *verdict.Evidence // in place of proofs, if these do not suffice
	at     time.Time         // when its gathering began
	ttl    time.Duration
}

// compactProof is a finding with the reason Signed. Proofs of many images share their
// common parts, and none shares memory with OCI's answer.
type compactProof struct {
	by        unique.Handle[version]
	algorithm unique.Handle[string]
	signature string
	signedAt  time.Time
}

// version is a version of a key.
type version struct {
	key signature.KeyID
	id  signature.KeyVersionID
}

// compact returns evidence in little memory. If all findings are proofs, verdict.Decide
// reads nothing else: the proofs that count decide, and if too few count, the first reason
// why a proof does not count. TestCompactEvidenceDecidesTheSame checks this.
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

// evidence returns the evidence that was compacted. It uses buf for the findings if they
// fit.
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
