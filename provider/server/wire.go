package server

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
)

// The response of Gatekeeper's external data protocol. This package declares it
// because the package in which Gatekeeper does so brings OPA along. A test compares
// the two, field by field.

const (
	apiVersion   = "externaldata.gatekeeper.sh/v1beta1"
	kindRequest  = "ProviderRequest"
	kindResponse = "ProviderResponse"
)

// ProviderResponse is what Gatekeeper gets.
type ProviderResponse struct {
	APIVersion string   `json:"apiVersion,omitempty"`
	Kind       string   `json:"kind,omitempty"`
	Response   Response `json:"response,omitempty"`
}

// Response holds the answers. A question that has no item has no answer, and
// SystemError says why.
type Response struct {
	Idempotent  bool   `json:"idempotent,omitempty"`
	Items       []Item `json:"items,omitempty"`
	SystemError string `json:"systemError,omitempty"`
}

// Item answers one question: Key is the question byte for byte, Value its
// verdict, Error why it is not a question at all.
type Item struct {
	Key   string `json:"key,omitempty"`
	Value any    `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}

// Sizes of answers, in bytes. 250 images with the longest verdicts take 400 KiB,
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

// put writes a text and a value after it. Browsers show no answers, so "<", ">" and
// "&" need no escapes.
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

// encode writes a response item by item, which saves a second copy of it. It calls
// grow once, before it takes more than usualAnswer bytes. It leaves out items that
// have no room, says so in the system error, and reports whether the response answers
// all questions.
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
