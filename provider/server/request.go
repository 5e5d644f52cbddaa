package server

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/oke-sign/oke-sign/provider/signature"
)

// Limits of a request. A Pod with a hundred containers causes a hundred questions of about
// 700 bytes each. The image policy never exceeds these limits.
const (
	maxBody     = 1 << 20
	usualBody   = 16 << 10 // allocated before the body arrives
	maxDropped  = 16 << 20 // read and dropped of a rejected request
	maxKeys     = 256
	maxQuestion = 4 << 10
)

var (
	errTooManyKeys = fmt.Errorf("more than %d keys", maxKeys)
	errKeyTooLong  = fmt.Errorf("a key of more than %d bytes", maxQuestion)
)

// decodeRequest returns the keys of Gatekeeper's envelope. It skips unknown fields, because
// the next release of Gatekeeper may send some. It rejects missing and repeated fields,
// and stops at the first key beyond a limit.
func decodeRequest(body string) ([]string, error) {
	if !utf8.ValidString(body) {
		return nil, errors.New("not valid UTF-8")
	}
	var version, kind string
	var keys []string
	add := func(key string) error {
		switch {
		case len(key) > maxQuestion:
			return errKeyTooLong
		case len(keys) == maxKeys:
			return errTooManyKeys
		}
		keys = append(keys, key)
		return nil
	}
	r := jsonReader{text: body, lenient: true}
	err := r.document([]field{
		{name: "apiVersion", text: &version},
		{name: "kind", text: &kind},
		{name: "request", object: []field{{name: "keys", each: add}}},
	})
	switch {
	case err != nil:
		return nil, err
	case version != apiVersion:
		return nil, fmt.Errorf("apiVersion is %.80q, not %q", version, apiVersion)
	case kind != kindRequest:
		return nil, fmt.Errorf("kind is %.80q, not %q", kind, kindRequest)
	case len(keys) == 0:
		return nil, errors.New("request.keys is missing or empty")
	}
	return keys, nil
}

// notGiven is the value of a digit that a question does not have.
const notGiven = -1

// subject is a parsed question: an image reference, and the allowed keys of a question about
// signatures.
type subject struct {
	image   string
	allowed signature.KeySet
}

// parseSignatureQuestion reads {"image":"…","keys":["ocid1.key…",…]}. Keys are sorted and
// distinct, as OPA writes a set. A member atLeast, from 2 to the number of keys, asks for
// as many different keys. Without atLeast, one key is enough; there is no atLeast 1, so
// that each question has one text.
//
// A question without keys is an error. The image policy answers that case itself. If it
// meant "any key", a mistake would become a yes.
func parseSignatureQuestion(question string) (subject, error) {
	var s subject
	last := ""
	var allowed []signature.KeyID
	add := func(ocid string) error {
		if len(allowed) == signature.MaxKeys {
			return fmt.Errorf("more than %d keys", signature.MaxKeys)
		}
		id, err := signature.ParseKeyID(ocid)
		if err != nil {
			return err
		}
		if ocid <= last {
			return errors.New("keys are not sorted, or one is given twice")
		}
		last = ocid
		allowed = append(allowed, id)
		return nil
	}
	atLeast := notGiven
	err := readQuestion(question, []field{
		{name: "image", text: &s.image},
		{name: "keys", each: add},
		{name: "atLeast", digit: &atLeast},
	})
	switch {
	case err != nil:
		return subject{}, err
	case s.image == "":
		return subject{}, errors.New("image is missing or empty")
	case len(allowed) == 0:
		return subject{}, errors.New("keys is missing or empty")
	case atLeast != notGiven && atLeast < 2:
		return subject{}, errors.New("atLeast is below 2")
	}
	if s.allowed, err = signature.NewKeySet(allowed...); err == nil && atLeast != notGiven {
		s.allowed, err = s.allowed.WithAtLeast(atLeast)
	}
	if err != nil {
		return subject{}, err
	}
	return s, nil
}

// parseScanQuestion reads {"image":"…"}. The question has no policy settings, so all
// policies share one answer.
func parseScanQuestion(question string) (subject, error) {
	var s subject
	err := readQuestion(question, []field{{name: "image", text: &s.image}})
	switch {
	case err != nil:
		return subject{}, err
	case s.image == "":
		return subject{}, errors.New("image is missing or empty")
	}
	return s, nil
}

// parseDigestQuestion accepts any text. Gatekeeper sends an empty question for a container
// without an image.
func parseDigestQuestion(question string) (subject, error) {
	if err := bounded(question); err != nil {
		return subject{}, err
	}
	return subject{image: question}, nil
}

// readQuestion reads a JSON object that has each field at most once and no other fields.
// Gatekeeper caches answers by the text of the question, so two readers must never
// understand one text in two ways.
func readQuestion(question string, fields []field) error {
	if err := bounded(question); err != nil {
		return err
	}
	r := jsonReader{text: question}
	return r.document(fields)
}

// bounded rejects a question that is too long or not UTF-8.
func bounded(question string) error {
	if len(question) > maxQuestion || !utf8.ValidString(question) {
		return fmt.Errorf("not valid UTF-8 of at most %d bytes", maxQuestion)
	}
	return nil
}
