package doctor

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
)

// statusErrors returns the errors that Gatekeeper's Pods report in a status.
func statusErrors(o unstructured.Unstructured) []string {
	var found []string
	pods, _, _ := unstructured.NestedSlice(o.Object, "status", "byPod")
	for _, p := range pods {
		p, _ := p.(map[string]any)
		errs, _, _ := unstructured.NestedSlice(p, "errors")
		for _, e := range errs {
			e, _ := e.(map[string]any)
			message, _ := e["message"].(string)
			found = append(found, cli.Clip(message, 200))
		}
	}
	return found
}

// flagsOf returns the values of a flag in the arguments of a Pod's containers.
func flagsOf(pod corev1.PodSpec, name string) []string {
	var found []string
	for _, c := range pod.Containers {
		for i, arg := range c.Args {
			switch flag, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "="); {
			case flag != name || !strings.HasPrefix(arg, "-"):
			case ok:
				found = append(found, value)
			case i+1 < len(c.Args) && !strings.HasPrefix(c.Args[i+1], "-"):
				found = append(found, c.Args[i+1])
			default:
				found = append(found, "true")
			}
		}
	}
	return found
}

// deniesPods reports whether a constraint denies Pods without signatures.
func deniesPods(c unstructured.Unstructured) bool {
	return c.GetKind() == policies.SignedImages && enforcement.ActsAt(c, "deny") && enforcement.MatchesKind(c, "", "Pod")
}

// deniesImages reports whether a constraint is one on images, and denies at admission.
func deniesImages(c unstructured.Unstructured) bool {
	return c.GetKind() != policies.BreakGlass && enforcement.ActsAt(c, "deny")
}

// bundle returns the CA certificates of a Provider.
func bundle(p unstructured.Unstructured) ([]*x509.Certificate, error) {
	encoded, _, _ := unstructured.NestedString(p.Object, "spec", "caBundle")
	if encoded == "" {
		return nil, errors.New("it is empty, so Gatekeeper connects to nothing")
	}
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("it is not base64")
	}
	return certificates(text)
}

// errNoCertificate reports a text without a valid certificate.
var errNoCertificate = errors.New("it holds no certificate in PEM")

// certificates parses the certificates of a PEM text.
func certificates(text []byte) ([]*x509.Certificate, error) {
	var found []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue // Gatekeeper and the provider skip other blocks, as Go's TLS does
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoCertificate, err)
		}
		found = append(found, c)
	}
	if len(found) == 0 {
		return nil, errNoCertificate
	}
	return found, nil
}

// enforcedBy returns the constraints as a state without namespaces and webhook.
func enforcedBy(constraints []unstructured.Unstructured) (e enforcement.State) {
	for i := range constraints {
		e.Constraints = append(e.Constraints, workload.Document{Object: &constraints[i]})
	}
	return e
}
