package connect_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// refused is OCI's refusal of an operation, to an API key unless the kind is given.
func refused(status int, code, operation string, kind ...string) *oci.Error {
	e := &oci.Error{Operation: operation, Host: "kms.eu-frankfurt-1.oraclecloud.com", Status: status, Code: code, AuthKind: ociauth.KindAPIKey, Identity: "profile DEFAULT of /home/me/.oci/config"}
	if len(kind) > 0 {
		e.AuthKind = kind[0]
	}
	return e
}

func TestAdvise(t *testing.T) {
	const unauthenticated, hidden = "NotAuthenticated", "NotAuthorizedOrNotFound"
	skewed := refused(401, unauthenticated, "ListVaults")
	skewed.Hint = "this machine's clock is 7m0s off OCI's"
	told := refused(401, unauthenticated, "ListVaults")
	told.Message = "Date 'Sun, 29 Nov 2026 01:00:00 GMT' is not within allowed clock skew."
	pods := schema.GroupResource{Resource: "pods"}
	for name, tc := range map[string]struct {
		err  error
		want []string // in the hints, in this order
	}{
		"nothing failed":                  {nil, nil},
		"an error of another kind":        {errors.New("the constraint is malformed"), nil},
		"a misspelt action":               {errors.New(`unrecognized enforcementAction "denny"`), nil},
		"a request that OCI rejects":      {refused(400, "InvalidParameter", "ListVaults"), nil},
		"a conflict":                      {refused(409, "IncorrectState", "Sign"), nil},
		"an unknown API key":              {refused(401, unauthenticated, "ListVaults"), []string{"the API key of profile DEFAULT of /home/me/.oci/config", "fingerprint", "\n", "region eu-frankfurt-1", "oci iam region-subscription list"}},
		"a session that OCI ended":        {refused(401, unauthenticated, "ListVaults", ociauth.KindSecurityToken), []string{"session token", ": oci session authenticate", "\n", "region-subscription"}},
		"a session that expired":          {fmt.Errorf("profile DEFAULT: %w", expired(t)), []string{"the session has ended", ": oci session authenticate"}},
		"a delegation token":              {refused(401, unauthenticated, "ListVaults", ociauth.KindInstanceOBOUser), []string{"reconnect Cloud Shell"}},
		"a workload":                      {refused(401, unauthenticated, "ListVaults", ociauth.KindOKEWorkloadIdentity), []string{"enhanced cluster"}},
		"an instance":                     {refused(401, unauthenticated, "ListVaults", ociauth.KindInstancePrincipal), []string{"try again in a minute"}},
		"a clock that OCI's date shows":   {skewed, []string{"clock", ": sudo timedatectl set-ntp true"}},
		"a clock that OCI complains of":   {told, []string{"clock", ": sudo timedatectl set-ntp true"}},
		"no right to sign":                {fmt.Errorf("signing: %w", refused(404, hidden, "Sign")), []string{"KEY_SIGN", ": kubectl oke-sign iam --signers GROUP\n", "check the name"}},
		"no right to sign, as a pipeline": {refused(404, hidden, "Sign", ociauth.KindResourcePrincipal), []string{"KEY_SIGN", ": kubectl oke-sign iam --for devops\n"}},
		"no right to sign, as a Pod":      {refused(404, hidden, "Sign", ociauth.KindOKEWorkloadIdentity), []string{": kubectl oke-sign iam --for workload\n"}},
		"no right to sign, on a machine":  {refused(404, hidden, "Sign", ociauth.KindInstancePrincipal), []string{": kubectl oke-sign iam --for instance\n"}},
		"no right to sign, in the shell":  {refused(404, hidden, "Sign", ociauth.KindInstanceOBOUser), []string{": kubectl oke-sign iam --for cloud-shell\n"}},
		"no right to upload, forbidden":   {refused(403, "NotAllowed", "CreateContainerImageSignature"), []string{"REPOSITORY_UPDATE", "iam --signers GROUP"}},
		"no right to see vaults":          {refused(404, hidden, "ListVaults"), []string{": Allow group GROUP to inspect vaults in tenancy\n"}},
		"no right, as an instance":        {refused(404, hidden, "ListVaults", ociauth.KindInstancePrincipal), []string{": Allow dynamic-group NAME to inspect vaults in tenancy\n"}},
		"no right, as a workload":         {refused(404, hidden, "GetCluster", ociauth.KindOKEWorkloadIdentity), []string{": Allow any-user to read clusters in tenancy where all {request.principal.type = 'workload', request.principal.namespace = 'NAMESPACE', request.principal.service_account = 'SERVICE_ACCOUNT', request.principal.cluster_id = 'CLUSTER_OCID'}\n"}},
		"no right to something else":      {refused(404, hidden, "MoveMountains"), []string{"must allow MoveMountains"}},
		"a page of a proxy":               {refused(404, "", "ListVaults"), []string{"not OCI's", "HTTPS_PROXY"}},
		"a login page":                    {refused(302, "", "ListVaults"), []string{"not OCI's", "HTTPS_PROXY"}},
		"too many requests":               {refused(429, "TooManyRequests", "GetKey"), []string{"limits the requests of the whole tenancy", "in a minute"}},
		"too many, and then too late":     {fmt.Errorf("no answer: %w; before that: %w", context.DeadlineExceeded, refused(429, "TooManyRequests", "GetKey")), []string{"limits the requests"}},
		"a fault of OCI":                  {refused(500, "InternalServerError", "GetKey"), []string{"ocistatus.oraclecloud.com", "opc-request-id"}},
		"a gateway of OCI":                {refused(503, "", "GetKey"), []string{"ocistatus.oraclecloud.com"}},
		"an answer that makes no sense":   {fmt.Errorf("ListVaults: %w", oci.ErrMalformed), []string{"changed the answer", "HTTPS_PROXY"}},
		"an unknown host":                 {&net.DNSError{Name: "kms.example.com", Err: "no such host", IsNotFound: true}, []string{"kms.example.com has no address", "HTTPS_PROXY"}},
		"a proxy that is gone":            {&net.OpError{Op: "proxyconnect", Err: syscall.ECONNREFUSED}, []string{"the proxy cannot be reached"}},
		"nobody listens":                  {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, []string{"firewall"}},
		"no route":                        {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}, []string{"firewall"}},
		"a certificate of another year":   {x509.CertificateInvalidError{Reason: x509.Expired}, []string{"clock", ": sudo timedatectl"}},
		"the end of --timeout":            {fmt.Errorf("reading: %w", context.DeadlineExceeded), []string{"longer --timeout"}},
		"credentials of the cluster":      {apierrors.NewUnauthorized("no"), []string{"credentials of the kubeconfig", ": kubectl auth whoami"}},
		"a right in the cluster":          {apierrors.NewForbidden(pods, "web", errors.New("no")), []string{"ask for the right", ": kubectl auth can-i --list"}},
		"a denial of a webhook":           {apierrors.NewForbidden(pods, "web", errors.New(`admission webhook "x" denied the request`)), nil},
		"a cluster that is overloaded":    {apierrors.NewTooManyRequestsError("later"), []string{"overloaded", ": kubectl get --raw '/readyz?verbose'"}},
	} {
		got := connect.Advise(tc.err)
		if got == "" && len(tc.want) > 0 || got != "" && len(tc.want) == 0 {
			t.Errorf("%s: got %q", name, got)
		}
		rest := got
		for _, want := range tc.want {
			_, after, found := strings.Cut(rest, want)
			if !found {
				t.Errorf("%s: got %q, which lacks %q", name, got, want)
			}
			rest = after
		}
	}
}

// expired is the error of a session that expired on disk.
func expired(t *testing.T) error {
	t.Helper()
	user := cloud.NewTenancy(t, ocitest.TenancyConfig{}).Admin()
	const token = "e30.eyJleHAiOjEwMDB9.c2ln" // {"exp":1000}
	file := t.TempDir() + "/token"
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ociauth.SignIn(t.Context(), ociauth.Config{ConfigFile: user.ConfigFile(), Profile: "SESSION", Override: ociauth.Override{SecurityTokenFile: file}})
	if err == nil {
		t.Fatal("a token that expired was accepted")
	}
	return err
}

// TestAdviseCalls looks at the errors that calls to OCI really return.
func TestAdviseCalls(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key, err := signature.ParseKeyID(tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048).ID)
	if err != nil {
		t.Fatal(err)
	}
	const vaults = "keymanagement.*"
	for name, tc := range map[string]struct {
		fault ocitest.Fault
		user  *ocitest.User
		want  string
	}{
		"unreachable":  {ocitest.Fault{Kind: ocitest.Unreachable, Host: "*-management.*"}, tenancy.Admin(), "the proxy does not reach "},
		"reset":        {ocitest.Fault{Kind: ocitest.Reset, Operation: vaults}, tenancy.Admin(), "the connection to OCI broke"},
		"hanging":      {ocitest.Fault{Kind: ocitest.Hang, Operation: vaults}, tenancy.Admin(), "OCI does not answer"},
		"cut":          {ocitest.Fault{Kind: ocitest.Body, Operation: vaults, Body: `{"id":`}, tenancy.Admin(), "changed the answer"},
		"throttled":    {ocitest.Fault{Kind: ocitest.Status, Operation: vaults, Status: 429, Code: "TooManyRequests", RetryAfter: "90"}, tenancy.Admin(), "try again after 1m30s"},
		"another date": {ocitest.Fault{Kind: ocitest.Body, Operation: vaults, Status: 401, Body: `{"code":"NotAuthenticated","message":"no"}`, Headers: map[string]string{"Date": "Sun, 29 Nov 2020 01:00:00 GMT"}}, tenancy.Admin(), "set the clock"},
		"no right":     {ocitest.Fault{}, tenancy.NewUser("nobody"), "KEY_READ"},
		"refused":      {ocitest.Fault{Kind: ocitest.Status, Operation: vaults, Status: 401, Code: "NotAuthenticated"}, tenancy.Admin(), "the API key of profile DEFAULT of "},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.fault.Kind != "" {
				defer cloud.ClearFaults()
				tenancy.Fault(tc.fault)
			}
			who, err := ociauth.SignIn(t.Context(), ociauth.Config{ConfigFile: tc.user.ConfigFile(), Client: oci.Config{Timeout: time.Second, AttemptTimeout: 300 * time.Millisecond}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = vault.New(who, vault.Config{}).Key(t.Context(), key)
			if got := connect.Advise(err); err == nil || !strings.Contains(got, tc.want) {
				t.Errorf("%v: got %q, want %q", err, got, tc.want)
			}
		})
	}
}

// TestAdvised keeps the hint of the error's author, and adds causes that it cannot know.
func TestAdvised(t *testing.T) {
	throttled, hidden := refused(429, "TooManyRequests", "GetKey"), refused(404, "NotAuthorizedOrNotFound", "GetKey")
	by := func(err error) error { return &cli.HintedError{What: err, Hint: "name it by its OCID"} }
	for name, tc := range map[string]struct {
		err  error
		want string // the beginning of the hint, or "" for none
		more bool   // whether another hint follows
	}{
		"no hint":                           {throttled, "OCI limits the requests", false},
		"a hint, and a cause of all":        {by(throttled), "name it by its OCID", true},
		"a hint, and a cause of one object": {by(hidden), "name it by its OCID", false},
		"a hint about the cluster":          {by(apierrors.NewUnauthorized("no")), "name it by its OCID", false},
		"nothing is known":                  {errors.New("x"), "", false},
	} {
		var hint string
		if hinted, ok := errors.AsType[*cli.HintedError](connect.Advised(tc.err)); ok {
			hint = hinted.Hint
		}
		first, _, more := strings.Cut(hint, "\n")
		if !strings.HasPrefix(first, tc.want) || tc.want == "" && hint != "" || more != tc.more {
			t.Errorf("%s: got %q", name, hint)
		}
		if !errors.Is(connect.Advised(tc.err), tc.err) {
			t.Errorf("%s: the error is lost", name)
		}
	}
	if connect.Advised(nil) != nil {
		t.Error("advice about no error")
	}
}
