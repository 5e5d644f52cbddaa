package main

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/provider/ociauth"
)

func environment(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

func TestParse(t *testing.T) {
	pod := map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
	own := []string{"--cert-secret", "a/b", "--service", "a/c:8443"}
	tls := []string{"--tls-cert", "c", "--tls-key", "k"}
	tests := map[string]struct {
		args []string
		env  map[string]string
		want func(*options) // the differences from the defaults
		err  string         // part of it
	}{
		"the smallest command line": {args: tls, want: func(*options) {}},
		"everything": {
			args: append([]string{
				"--addr", "127.0.0.1:1", "--health-addr=127.0.0.1:2", "--client-ca", "ca", "--client-name", "n",
				"--auth", "security_token", "--config-file", "f", "--profile", "p", "--timeout", "2s", "--log-format", "text", "--drain", "1s", "--pprof",
				"--tenancy", "a=ocid1.tenancy.oc1..x", "--tenancy", "b=ocid1.tenancy.oc1..y",
				"--vault-endpoint", "https://v", "--compartment", "ocid1.compartment.oc1..c", "--compartment", "ocid1.tenancy.oc1..t",
			}, tls...),
			want: func(o *options) {
				o.addr, o.healthAddr, o.clientCA, o.clientName = "127.0.0.1:1", "127.0.0.1:2", "ca", "n"
				o.who.Kind, o.who.ConfigFile, o.who.Profile, o.timeout, o.logFormat = "security_token", "f", "p", 2*time.Second, "text"
				o.drainFor, o.pprof = time.Second, true
				o.tenancies = map[string]string{"a": "ocid1.tenancy.oc1..x", "b": "ocid1.tenancy.oc1..y"}
				o.endpoints = []string{"https://v"}
				o.compartments = []string{"ocid1.compartment.oc1..c", "ocid1.tenancy.oc1..t"}
			},
		},
		"the variables of Oracle's tools": {
			args: tls, env: map[string]string{"OCI_CONFIG_FILE": "e", "OCI_DEFAULT_CERTS_PATH": "ca"},
			want: func(o *options) { o.who.ConfigFile, o.who.Client.CAFile = "e", "ca" },
		},
		"the program's own variables": {
			args: tls, env: map[string]string{
				"OCI_CLI_AUTH": "instance_obo_user", "OCI_CONFIG_FILE": "e", "OCI_CLI_CONFIG_FILE": "f", "OCI_CLI_PROFILE": "p", "OCI_CLI_REGION": "r",
				"OCI_CLI_CERT_BUNDLE": "b", "OCI_DEFAULT_CERTS_PATH": "ca", "OCI_CLI_TENANCY": "t",
			},
			want: func(o *options) {
				o.who.Kind, o.who.ConfigFile, o.who.Profile, o.who.Region = "instance_obo_user", "f", "p", "r"
				o.who.Client.CAFile, o.who.Override.Tenancy = "b", "t"
			},
		},
		"a flag beats the environment": {
			args: append([]string{"--config-file", "f"}, tls...), env: map[string]string{"OCI_CLI_CONFIG_FILE": "e"},
			want: func(o *options) { o.who.ConfigFile = "f" },
		},
		"no certificate":             {args: nil, err: "set --cert-secret and --service, or --tls-cert and --tls-key"},
		"no key":                     {args: tls[:2], err: "set --cert-secret and --service, or --tls-cert and --tls-key"},
		"a client name without a CA": {args: append([]string{"--client-name", "n"}, tls...), err: "--client-name without --client-ca"},
		"a self-made certificate, registered with Gatekeeper": {
			args: append([]string{"--client-ca-from-gatekeeper", "--gatekeeper-webhooks", "g"}, own...), env: map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"},
			want: func(o *options) {
				o.tlsCert, o.tlsKey, o.who.Workload.KubernetesHost, o.apiPort = "", "", "10.96.0.1", "6443"
				o.certSecret = types.NamespacedName{Namespace: "a", Name: "b"}
				o.service = certs.Service{NamespacedName: types.NamespacedName{Namespace: "a", Name: "c"}, Port: 8443}
				o.fromGatekeeper, o.gatekeeper = true, "g"
			},
		},
		"Gatekeeper by a name": {
			args: append([]string{"--client-ca-from-gatekeeper", "--client-name", "n"}, tls...), env: pod,
			want: func(o *options) {
				o.who.Workload.KubernetesHost, o.fromGatekeeper, o.clientName = "10.96.0.1", true, "n"
			},
		},
		"two certificates":                             {args: append(own, tls...), env: pod, err: "set only one of the two"},
		"a certificate without a Service":              {args: own[:2], env: pod, err: "--cert-secret needs --service"},
		"a service without a certificate":              {args: append(own[2:4:4], tls...), env: pod, err: "--service without --cert-secret"},
		"two CAs":                                      {args: append([]string{"--client-ca", "f", "--client-ca-from-gatekeeper"}, tls...), env: pod, err: "set only one of the two"},
		"Gatekeeper outside of a cluster":              {args: append([]string{"--client-ca-from-gatekeeper"}, tls...), err: "KUBERNETES_SERVICE_HOST is not set"},
		"a self-made certificate outside of a cluster": {args: own, err: "KUBERNETES_SERVICE_HOST is not set"},
		"a Secret without a namespace":                 {args: []string{"--cert-secret", "b", "--service", "a/c"}, env: pod, err: "want NAMESPACE/NAME"},
		"a Service without a port number":              {args: []string{"--cert-secret", "a/b", "--service", "a/c:https"}, env: pod, err: "want NAMESPACE/NAME or NAMESPACE/NAME:PORT"},
		"a longer timeout than the Provider object's":  {args: append([]string{"--timeout", "2s"}, own...), env: pod, err: "--timeout 2s: want less than 2s"},
		"a longer timeout for scans":                   {args: append([]string{"--scan-timeout", "1s"}, own...), env: pod, err: "--scan-timeout 1s: want less than 1s"},
		"nearly as long": {
			args: append([]string{"--timeout", "1.9s", "--scan-timeout", "900ms"}, own...), env: pod,
			want: func(o *options) {
				o.tlsCert, o.tlsKey, o.who.Workload.KubernetesHost = "", "", "10.96.0.1"
				o.certSecret = types.NamespacedName{Namespace: "a", Name: "b"}
				o.service = certs.Service{NamespacedName: types.NamespacedName{Namespace: "a", Name: "c"}, Port: 8443}
				o.timeout, o.scanTime = 1900*time.Millisecond, 900*time.Millisecond
			},
		},
		"webhooks without --client-ca-from-gatekeeper": {args: append([]string{"--gatekeeper-webhooks", "g"}, tls...), err: "--gatekeeper-webhooks without --client-ca-from-gatekeeper"},
		"a workload": {
			args: append([]string{"--auth", "oke_workload_identity", "--service-account", "d"}, tls...),
			env:  map[string]string{"OCI_RESOURCE_PRINCIPAL_REGION": "us-ashburn-1", "KUBERNETES_SERVICE_HOST": "10.96.0.1"},
			want: func(o *options) {
				o.who.Kind, o.who.Workload.Dir, o.who.Resource.Region = "oke_workload_identity", "d", "us-ashburn-1"
				o.who.Workload.KubernetesHost = "10.96.0.1"
			},
		},
		"an instance": {
			args: append([]string{"--auth", "instance_principal"}, tls...), env: map[string]string{"OCI_METADATA_BASE_URL": "http://127.0.0.1/opc/v2"},
			want: func(o *options) { o.who.Kind, o.who.Metadata = "instance_principal", "http://127.0.0.1/opc/v2" },
		},
		"a resource": {
			args: append([]string{"--auth", "resource_principal"}, tls...),
			env: map[string]string{
				"OCI_RESOURCE_PRINCIPAL_VERSION": "2.2", "OCI_RESOURCE_PRINCIPAL_RPST": "t", "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM": "k",
				"OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM_PASSPHRASE": "p", "OCI_RESOURCE_PRINCIPAL_REGION": "us-ashburn-1",
			},
			want: func(o *options) {
				o.who.Kind = "resource_principal"
				o.who.Resource = ociauth.Resource{Version: "2.2", Region: "us-ashburn-1", Token: "t", Key: "k", Passphrase: "p"}
			},
		},
		"a workload without a region":   {args: append([]string{"--auth", "oke_workload_identity"}, tls...), err: "--auth oke_workload_identity needs --region"},
		"OIDC without a region":         {args: append([]string{"--auth", "oidc", "--oidc-domain", "https://d.identity.oraclecloud.com"}, tls...), err: "--auth oidc needs --region and --oidc-domain"},
		"OIDC without a domain":         {args: append([]string{"--auth", "oidc", "--region", "iad"}, tls...), err: "--auth oidc needs --region and --oidc-domain"},
		"an unknown auth kind":          {args: append([]string{"--auth", "basic"}, tls...), err: `--auth "basic": want api_key, security_token, instance_principal, instance_obo_user, resource_principal, oke_workload_identity, oidc`},
		"no time":                       {args: append([]string{"--timeout", "0s"}, tls...), err: "--timeout 0s"},
		"too much time":                 {args: append([]string{"--timeout", "1m"}, tls...), err: "--timeout 1m0s"},
		"a drain that is too long":      {args: append([]string{"--drain", "2m"}, tls...), err: "--drain 2m0s"},
		"a negative drain":              {args: append([]string{"--drain", "-1s"}, tls...), err: "--drain -1s"},
		"a number without a unit":       {args: append([]string{"--timeout", "2"}, tls...), err: "timeout"},
		"an unknown format":             {args: append([]string{"--log-format", "xml"}, tls...), err: `--log-format "xml"`},
		"an unknown flag":               {args: append([]string{"--insecure"}, tls...), err: "insecure"},
		"an argument":                   {args: append(tls, "serve"), err: `unexpected argument "serve"`},
		"a tenancy without a namespace": {args: append([]string{"--tenancy", "ocid1.tenancy.oc1..x"}, tls...), err: "want NAMESPACE=OCID"},
		"a namespace of two tenancies":  {args: append([]string{"--tenancy", "a=ocid1.tenancy.oc1..x", "--tenancy", "a=ocid1.tenancy.oc1..y"}, tls...), err: "two tenancies"},
		"a compartment by its name":     {args: append([]string{"--compartment", "prod"}, tls...), err: "want the OCID"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parse(process{args: tt.args, getenv: environment(tt.env), stdout: &bytes.Buffer{}})
			if tt.err != "" {
				var usage usageError
				if !errors.As(err, &usage) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got error %v, want a usage error with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := options{
				addr: ":8443", healthAddr: ":8081", tlsCert: "c", tlsKey: "k",
				timeout: 1300 * time.Millisecond, scanTime: 300 * time.Millisecond, drainFor: 5 * time.Second, logFormat: "json", tenancies: map[string]string{},
				apiPort: "443", gatekeeper: "gatekeeper-validating-webhook-configuration",
			}
			tt.want(&want)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(options{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if _, err := parse(process{args: []string{"--help"}, getenv: environment(nil), stdout: &out}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v, want flag.ErrHelp", err)
	}
	for line := range strings.Lines(out.String()) {
		if len(strings.TrimSuffix(line, "\n")) > 80 {
			t.Errorf("a line of %d columns: %s", len(line)-1, line)
		}
	}
	for _, want := range []string{"Usage: oke-sign-provider", "--cert-secret NAMESPACE/NAME", "--tls-cert file", "--timeout time", "(default 1.3s)", "--tenancy NAMESPACE=OCID", "--version\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, out.String())
		}
	}
}
