package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	maxAnswer  = 4 << 20
	maxRefusal = 64 << 10
)

// ReadRefusal returns the [*Error] of an answer whose status is not a success. An
// answer that is not in OCI's form becomes an error without a code.
func ReadRefusal(call Call, res *http.Response) error {
	e := &Error{
		Operation: call.Operation, Host: call.Host, Status: res.StatusCode,
		RequestID:  requestID(res.Header),
		retryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now()),
	}
	var told struct{ Code, Message string }
	body, err := ReadBody(res.Body, maxRefusal)
	switch {
	case res.StatusCode >= 300 && res.StatusCode <= 399:
		e.Message = "redirects are not followed"
	case err != nil || json.Unmarshal(body, &told) != nil || told.Code == "":
		e.Message = "not an error in OCI's form; a proxy may have answered"
	default:
		e.Code, e.Message = Printable(told.Code, 60), Printable(told.Message, 300)
	}
	if res.StatusCode == http.StatusUnauthorized {
		if at, err := http.ParseTime(res.Header.Get("Date")); err == nil {
			if off := time.Since(at).Round(time.Second); off.Abs() > 4*time.Minute {
				e.Hint = fmt.Sprintf("this machine's clock is %s off OCI's", off)
			}
		}
	}
	return e
}

// ReadBody reads the body of an answer. A longer one than limit is malformed.
func ReadBody(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, &brokenError{err}
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, limit)
	}
	return body, nil
}

// decode reads JSON into answer, unless answer is nil. It rejects a bare null, which
// would leave answer empty and look like an empty answer of OCI.
func decode(body []byte, answer any) error {
	if answer == nil {
		return nil
	}
	if string(bytes.TrimSpace(body)) == "null" {
		return errors.New("JSON null")
	}
	return json.Unmarshal(body, answer)
}

func requestID(answer http.Header) string { return Printable(answer.Get("opc-request-id"), 120) }
