package ociauth

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/oke-sign/oke-sign/provider/oci"
)

// sendSigned sends a signed request to a service of OCI that issues tokens, and reads the
// JSON object of the answer.
func sendSigned(transport *http.Transport, call oci.Call, req *http.Request) (answer, http.Header, error) {
	res, err := transport.RoundTrip(req)
	if err != nil {
		return nil, nil, fmt.Errorf("asking %s: %w", call.Host, err)
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	if res.StatusCode != http.StatusOK {
		// As text only: an oci.Error would look like the answer to the call that
		// needs the token.
		return nil, nil, fmt.Errorf("%v", oci.ReadRefusal(call, res)) //nolint:errorlint // on purpose
	}
	body, err := oci.ReadBody(res.Body, maxTokenFile)
	if err != nil {
		return nil, nil, fmt.Errorf("asking %s: %w", call.Host, err)
	}
	given, err := parseAnswer(body)
	if err != nil {
		return nil, nil, fmt.Errorf("asking %s: %w: %w", call.Host, oci.ErrMalformed, err)
	}
	return given, res.Header, nil
}

// isHost reports whether s is a plain host name in lower case, without a port.
func isHost(s string) bool {
	if len(s) > 253 || !consists(s, "abcdefghijklmnopqrstuvwxyz0123456789.-") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
