package server

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/oke-sign/oke-sign/provider/signature"
)

// Limits of a request. A Pod of a hundred containers asks a hundred questions of
// some 700 bytes; what is beyond these limits was not asked by our policy.
const (
	maxBody     = 1 << 20
	usualBody   = 16 << 10 // room that is made before anything has come
	maxDropped  = 16 << 20 // of a request that is refused
	maxKeys     = 256
	maxQuestion = 4 << 10
	maxAllowed  = 5 // keys that a policy may list
)

var (
	errTooManyKeys = fmt.Errorf("more than %d keys", maxKeys)
	errKeyTooLong  = fmt.Errorf("a key of more than %d bytes", maxQuestion)
)

// decodeRequest reads Gatekeeper's envelope. Fields it does not know are left
// alone, because Gatekeeper's next release may send some; those it does know
// have to be there, once each. It stops at the first key beyond a limit.
func decodeRequest(body string) (ProviderRequest, error) {
	if !utf8.ValidString(body) {
		return ProviderRequest{}, errors.New("not valid UTF-8")
	}
	var req ProviderRequest
	s := scanner{text: body}
	skip := func() error { return s.skip(0) }
	text := func(into *string) func() error {
		return func() (err error) {
			*into, err = s.str()
			return err
		}
	}
	keys := func() error {
		return s.array(func() error {
			key, err := s.str()
			switch {
			case err != nil:
				return err
			case len(key) > maxQuestion:
				return errKeyTooLong
			case len(req.Request.Keys) == maxKeys:
				return errTooManyKeys
			}
			req.Request.Keys = append(req.Request.Keys, key)
			return nil
		})
	}
	err := s.object([]field{
		{name: "apiVersion", read: text(&req.APIVersion)},
		{name: "kind", read: text(&req.Kind)},
		{name: "request", read: func() error {
			return s.object([]field{{name: "keys", read: keys}}, skip)
		}},
	}, skip)
	if err == nil {
		err = s.end()
	}
	switch {
	case err != nil:
		return ProviderRequest{}, err
	case req.APIVersion != apiVersion:
		return ProviderRequest{}, fmt.Errorf("apiVersion is %.80q, not %q", req.APIVersion, apiVersion)
	case req.Kind != kindRequest:
		return ProviderRequest{}, fmt.Errorf("kind is %.80q, not %q", req.Kind, kindRequest)
	case len(req.Request.Keys) == 0:
		return ProviderRequest{}, errors.New("request.keys is missing or empty")
	}
	return req, nil
}

// question is what one key asks: is image signed by one of allowed? Of scans
// there is nothing to allow.
type question struct {
	image   string
	allowed []signature.KeyID
}

// parseQuestion reads a key, {"image":"…","keys":["ocid1.key…",…]}. Gatekeeper
// caches answers by key, so nothing may be in it that two readers could take in
// two ways: both fields once and no other, keys in order and each once. There is
// no question without keys: the policy settles that case, and taking it for "any
// key" here would make a yes out of a mistake.
func parseQuestion(key string) (question, error) {
	var q question
	s := scanner{text: key}
	if len(key) > maxQuestion || !utf8.ValidString(key) {
		return question{}, fmt.Errorf("not valid UTF-8 of at most %d bytes", maxQuestion)
	}
	last := ""
	allowed := func() error {
		ocid, err := s.str()
		if err != nil {
			return err
		}
		if len(q.allowed) == maxAllowed {
			return fmt.Errorf("more than %d keys", maxAllowed)
		}
		id, err := signature.ParseKeyID(ocid)
		if err != nil {
			return err
		}
		if ocid <= last {
			return errors.New("keys are not sorted, or one is given twice")
		}
		last = ocid
		q.allowed = append(q.allowed, id)
		return nil
	}
	err := s.object([]field{
		{name: "image", read: func() (err error) {
			q.image, err = s.str()
			return err
		}},
		{name: "keys", read: func() error { return s.array(allowed) }},
	}, nil)
	if err == nil {
		err = s.end()
	}
	switch {
	case err != nil:
		return question{}, err
	case q.image == "":
		return question{}, errors.New("image is missing or empty")
	case len(q.allowed) == 0:
		return question{}, errors.New("keys is missing or empty")
	}
	return q, nil
}

// parseScanQuestion reads a key, {"image":"…"}, as strictly: nothing of a policy is
// in it, so that all policies share the answer.
func parseScanQuestion(key string) (question, error) {
	var q question
	s := scanner{text: key}
	if len(key) > maxQuestion || !utf8.ValidString(key) {
		return question{}, fmt.Errorf("not valid UTF-8 of at most %d bytes", maxQuestion)
	}
	err := s.object([]field{{name: "image", read: func() (err error) {
		q.image, err = s.str()
		return err
	}}}, nil)
	if err == nil {
		err = s.end()
	}
	switch {
	case err != nil:
		return question{}, err
	case q.image == "":
		return question{}, errors.New("image is missing or empty")
	}
	return q, nil
}
