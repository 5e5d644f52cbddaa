package server

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
)

// The response of Gatekeeper's external data protocol. Gatekeeper's own package with these
// types imports OPA, so this package declares them again. A test compares both, field by
// field.

const (
	apiVersion   = "externaldata.gatekeeper.sh/v1beta1"
	kindRequest  = "ProviderRequest"
	kindResponse = "ProviderResponse"
)

// ProviderResponse is the body of an answer.
type ProviderResponse struct {
	APIVersion string   `json:"apiVersion,omitempty"`
	Kind       string   `json:"kind,omitempty"`
	Response   Response `json:"response,omitempty"`
}

// Response holds the answers. SystemError says why a question has no item.
type Response struct {
	Idempotent  bool   `json:"idempotent,omitempty"`
	Items       []Item `json:"items,omitempty"`
	SystemError string `json:"systemError,omitempty"`
}

// Item answers one question. Key is the question byte for byte, Value the answer, and
// Error the reason why Key is not a question.
type Item struct {
	Key   string `json:"key,omitempty"`
	Value any    `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}

// Bounds of answers, in bytes. 250 images with the longest verdicts take 400 KiB,
// and with a hundred problems each 1.3 MiB.
const (
	usualAnswer = 64 << 10
	maxAnswer   = 2 << 20
	maxValue    = 16 << 10 // one report with a hundred problems of the longest names
)

// encoder writes the text of a ProviderResponse.
type encoder struct {
	bytes.Buffer
	err error // the first value that did not encode
}

// put writes a text and then a value. It does not escape "<", ">" and "&", because no
// browser shows an answer.
func (e *encoder) put(text string, v any) {
	_, _ = e.WriteString(text)
	enc := json.NewEncoder(&e.Buffer)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		e.err = cmp.Or(e.err, err)
		return
	}
	e.Truncate(e.Len() - len("\n"))
}

// encode writes a response item by item, without a second copy in memory. It calls grow
// once, before the text exceeds usualAnswer bytes. It leaves out items beyond the bound,
// says so in the systemError, and reports whether the response answers all questions.
func (e *encoder) encode(r Response, grow func() bool) (complete bool) {
	e.put(`{"apiVersion":`, apiVersion)
	e.put(`,"kind":`, kindResponse)
	_, _ = e.WriteString(`,"response":{"idempotent":true`)
	written, why := 0, ""
	for grown := false; written < len(r.Items) && why == ""; {
		item := r.Items[written]
		size := e.Len() + len(item.Key) + maxValue
		if size > usualAnswer && !grown {
			grown = grow()
			if grown {
				e.Grow(estimate(r.Items[written:]))
			} else {
				why = "other large answers have yet to be read"
			}
		}
		if size > maxAnswer {
			why = fmt.Sprintf("an answer has %d bytes at most", maxAnswer)
		}
		if why == "" {
			e.put(before(written), item)
			written++
		}
	}
	if written > 0 {
		_ = e.WriteByte(']')
	}
	if why != "" {
		lines := []string{fmt.Sprintf("%d questions are left out: %s", len(r.Items)-written, why)}
		if r.SystemError != "" {
			lines = append(lines, oneLine(r.SystemError, maxCause))
		}
		r.SystemError = systemError(lines)
	}
	if r.SystemError != "" {
		e.put(`,"systemError":`, r.SystemError)
	}
	_, _ = e.WriteString("}}\n")
	return r.SystemError == ""
}

// before returns the text before the nth item.
func before(n int) string {
	if n == 0 {
		return `,"items":[`
	}
	return ","
}

// estimate returns a lower bound for the bytes that items take.
func estimate(items []Item) int {
	n := 0
	for _, item := range items {
		n += len(item.Key) + len(item.Error) + len(`{"key":"","error":""},`)
	}
	return n
}
