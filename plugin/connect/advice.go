package connect

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
)

// Advised adds the hint of [Advise] to an error. An error that has a hint keeps it. Its
// author knows the object but not why OCI did not answer, so Advised adds causes that
// concern every object, such as a limit on requests.
func Advised(err error) error {
	if errors.Is(err, errNoKubeconfig) {
		return &cli.HintedError{What: errNoKubeconfig, Hint: setUpKube}
	}
	hint := Advise(err)
	if hint == "" {
		return err
	}
	if given, ok := errors.AsType[*cli.HintedError](err); ok {
		if refused, ok := errors.AsType[*oci.Error](err); !ok && oci.NoAnswer(err) == "" || ok && denied(refused) {
			return err
		}
		if given.Hint != "" && given.Hint != hint {
			hint = given.Hint + "\n" + hint
		}
	}
	return &cli.HintedError{What: err, Hint: hint}
}

// Advise returns what the user can do about an error of OCI, of the cluster, or of the
// network to either. Each line is a hint, and the first is the most useful. Advise
// returns "" if it does not know the error.
func Advise(err error) string {
	if refused, ok := errors.AsType[*oci.Error](err); ok {
		return adviseRefused(refused)
	}
	if ociauth.IsExpired(err) {
		return signInAgain
	}
	if oci.IsMalformed(err) {
		return "something between this machine and OCI may have changed the answer: check HTTPS_PROXY, and try again"
	}
	if hint := adviseNetwork(err); hint != "" {
		return hint
	}
	switch {
	case err == nil:
		return ""
	case apierrors.IsUnauthorized(err):
		return "the cluster rejects the credentials of the kubeconfig; see whether kubectl has the same problem: kubectl auth whoami"
	case apierrors.IsForbidden(err) && !strings.Contains(err.Error(), "admission webhook"):
		return "ask for the right that the error names; list your rights: kubectl auth can-i --list"
	case apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsServiceUnavailable(err):
		return "the API server is overloaded; try again, and check its state: kubectl get --raw '/readyz?verbose'"
	case errors.Is(err, context.DeadlineExceeded):
		return "try again with a longer --timeout"
	}
	return ""
}

const signInAgain = "the session has ended; sign in again: oci session authenticate"

// adviseRefused returns the advice about OCI's refusal of a request.
func adviseRefused(e *oci.Error) string {
	switch {
	case clockIsWrong(e):
		return "OCI rejects requests that are five minutes old, so set the clock of this machine: sudo timedatectl set-ntp true"
	case e.Code == "" && e.Status < http.StatusInternalServerError:
		return "the answer is not OCI's: a proxy may have sent it; check HTTPS_PROXY and NO_PROXY"
	case e.Status == http.StatusUnauthorized:
		return adviseUnauthenticated(e)
	case denied(e):
		return adviseDenied(e)
	case e.Status == http.StatusTooManyRequests:
		return adviseThrottled(e)
	case e.Status >= http.StatusInternalServerError:
		return "OCI has a fault: try again, and see https://ocistatus.oraclecloud.com; Oracle's support asks for the opc-request-id"
	}
	return ""
}

// clockIsWrong reports whether OCI refused a request for its date. OCI names the limits
// in the message; package oci compares the date of the answer.
func clockIsWrong(e *oci.Error) bool {
	return e.Status == http.StatusUnauthorized && (strings.Contains(e.Hint, "clock") || strings.Contains(e.Message, "clock skew"))
}

// denied reports whether OCI says that the identity lacks a right, or hides an object.
func denied(e *oci.Error) bool {
	return e.Code != "" && (e.Status == http.StatusForbidden || e.Status == http.StatusNotFound)
}

// adviseUnauthenticated returns the advice about a 401. OCI gives the same answer for
// each of its causes.
func adviseUnauthenticated(e *oci.Error) string {
	region := "the region"
	if r := regionOf(e.Host); r != "" {
		region = "region " + r
	}
	subscribed := "\nif the tenancy is not subscribed to " + region + ", use one that it is subscribed to: oci iam region-subscription list"
	who := e.Identity
	if who == "" {
		who = "this identity"
	}
	switch e.AuthKind {
	case ociauth.KindAPIKey:
		return fmt.Sprintf("OCI does not know the API key of %s: compare user, tenancy and fingerprint with OCI's Console, My profile, API keys", who) + subscribed
	case ociauth.KindSecurityToken:
		return fmt.Sprintf("OCI rejects the session token of %s; sign in again: oci session authenticate", who) + subscribed
	case ociauth.KindInstanceOBOUser:
		return "OCI rejects the delegation token: reconnect Cloud Shell, and try again" + subscribed
	case ociauth.KindOKEWorkloadIdentity:
		return "OCI rejects the token of the service account: workload identity needs an enhanced cluster" + subscribed
	}
	return fmt.Sprintf("OCI rejects the credentials of %s: try again in a minute, when they are replaced", who) + subscribed
}

// adviseThrottled returns the advice about a 429.
func adviseThrottled(e *oci.Error) string {
	wait := "in a minute"
	if after := e.RetryAfter(); after > 0 {
		wait = "after " + after.Round(time.Second).String() + ", which OCI asks for"
	}
	return "OCI limits the requests of the whole tenancy, so others may use them up: try again " + wait
}

// statements are the rights of operations that `iam --signers` does not print, as IAM's
// statements name them.
var statements = map[string]string{
	"ListVaults": "inspect vaults", "GetVault": "read vaults", "CreateVault": "manage vaults", "CreateKey": "manage keys",
	"ListContainerRepositories": "inspect repos", "CreateContainerRepository": "manage repos", "DeleteContainerRepository": "manage repos",
	"ListCompartments": "inspect compartments", "GetCompartment": "inspect compartments", "ListPolicies": "inspect policies",
	"GetCluster": "read clusters", "UpdateCluster": "use clusters",
	"GetWorkRequest": "read cluster-work-requests", "ListWorkRequestErrors": "read cluster-work-requests",
	"ListContainerScanRecipes": "inspect container-scan-recipes", "GetContainerScanRecipe": "read container-scan-recipes",
	"CreateContainerScanRecipe": "manage container-scan-recipes", "DeleteContainerScanRecipe": "manage container-scan-recipes",
	"ListContainerScanTargets": "inspect container-scan-targets", "GetContainerScanTarget": "read container-scan-targets",
	"CreateContainerScanTarget": "manage container-scan-targets", "DeleteContainerScanTarget": "manage container-scan-targets",
	"ListContainerScanResults": "inspect container-scan-results", "GetContainerScanResult": "read container-scan-results",
}

// permissions are the permissions of operations that verify and sign. `iam --signers`
// prints statements with all of them.
var permissions = map[string]string{
	"Sign": "KEY_SIGN", "GetKey": "KEY_READ", "ListKeys": "KEY_INSPECT", "GetKeyVersion": "KEY_READ", "ListKeyVersions": "KEY_INSPECT",
	"ListContainerImages": "REPOSITORY_INSPECT", "ListContainerImageSignatures": "REPOSITORY_INSPECT", "GetContainerConfiguration": "REPOSITORY_INSPECT",
	"LookupContainerImageByUri": "REPOSITORY_READ", "GetContainerImageSignature": "REPOSITORY_READ",
	"CreateContainerImageSignature": "REPOSITORY_UPDATE", "DeleteContainerImageSignature": "REPOSITORY_UPDATE", "DeleteContainerImage": "REPOSITORY_UPDATE",
}

// adviseDenied returns the advice about a 403 or a 404. OCI answers 404 for what does
// not exist, and for what the identity may not see.
func adviseDenied(e *oci.Error) string {
	missing := ""
	if e.Status == http.StatusNotFound {
		missing = "\nOCI gives the same answer for what does not exist: check the name, the OCID and the region"
	}
	if right := statements[e.Operation]; right != "" {
		who, where := subject(e.AuthKind)
		return "an IAM policy must grant the right: Allow " + who + " to " + right + " in tenancy" + where + missing
	}
	if permission := permissions[e.Operation]; permission != "" {
		return e.Operation + " needs the permission " + permission + "; print the statements that grant it: kubectl oke-sign iam " + environment(e.AuthKind) + missing
	}
	return "an IAM policy must allow " + e.Operation + missing
}

// subject returns the subject and the condition of a statement for an auth kind, with names
// to fill in. A workload has no group, and any-user without the condition would be every
// identity of the tenancy.
func subject(kind string) (who, where string) {
	switch kind {
	case ociauth.KindInstancePrincipal, ociauth.KindResourcePrincipal:
		return "dynamic-group NAME", ""
	case ociauth.KindOKEWorkloadIdentity:
		return "any-user", " where all {request.principal.type = 'workload', request.principal.namespace = 'NAMESPACE', request.principal.service_account = 'SERVICE_ACCOUNT', request.principal.cluster_id = 'CLUSTER_OCID'}"
	}
	return "group GROUP", ""
}

// environment returns the flags of the iam command for an auth kind.
func environment(kind string) string {
	switch kind {
	case ociauth.KindInstancePrincipal:
		return "--for instance"
	case ociauth.KindResourcePrincipal:
		return "--for devops"
	case ociauth.KindOKEWorkloadIdentity:
		return "--for workload"
	case ociauth.KindInstanceOBOUser:
		return "--for cloud-shell"
	}
	return "--signers GROUP"
}

// regionOf returns the region in the name of one of OCI's hosts, or "".
func regionOf(host string) string {
	for label := range strings.SplitSeq(host, ".") {
		if r, err := image.ParseRegion(label); err == nil {
			return r.ID()
		}
	}
	return ""
}

// adviseNetwork returns the advice about a request without an answer.
func adviseNetwork(err error) string {
	if status := oci.ProxyStatus(err); status != 0 {
		return adviseProxy(err, status)
	}
	dial, dialed := errors.AsType[*net.OpError](err)
	dns, resolved := errors.AsType[*net.DNSError](err)
	_, unknownCA := errors.AsType[x509.UnknownAuthorityError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	toOCI := oci.NoAnswer(err) != ""
	switch {
	case dialed && dial.Op == "proxyconnect":
		return "the proxy cannot be reached: check HTTPS_PROXY and NO_PROXY"
	case resolved:
		return fmt.Sprintf("%s has no address here: check the region, DNS and the network; behind a proxy set HTTPS_PROXY", cli.Clip(dns.Name, 100))
	case isInvalid && invalid.Reason == x509.Expired:
		return "if the certificate is valid, the clock of this machine is wrong: sudo timedatectl set-ntp true"
	case unknownCA && toOCI:
		return "a proxy may open the connections to OCI: name the file with its certificate authority in OCI_DEFAULT_CERTS_PATH"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "check the network and the firewall; behind a proxy set HTTPS_PROXY"
	case toOCI && errors.Is(err, context.DeadlineExceeded):
		return "OCI does not answer: check the network, the firewall and HTTPS_PROXY; a longer --timeout helps if the network is slow"
	case toOCI && !errors.Is(err, context.Canceled):
		return "the connection to OCI broke: try again; if it breaks again, check the network, the firewall and HTTPS_PROXY"
	}
	return ""
}

// adviseProxy returns the advice about a proxy that refuses to connect to OCI.
func adviseProxy(err error, status int) string {
	host := cmp.Or(oci.NoAnswer(err), "OCI")
	switch {
	case status == http.StatusProxyAuthRequired:
		return "the proxy wants credentials: set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
	case oci.NoSuchHost(err):
		return fmt.Sprintf("the proxy does not reach %s: check the region, and ask who runs the proxy", host)
	}
	return fmt.Sprintf("the proxy must allow CONNECT to %s: ask who runs it, or add the host to NO_PROXY", host)
}
