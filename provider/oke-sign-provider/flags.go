package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/server"
)

// options are the flags.
type options struct {
	addr, healthAddr string

	tlsCert, tlsKey string
	certSecret      types.NamespacedName // instead of files
	service         certs.Service

	clientCA       string
	fromGatekeeper bool
	gatekeeper     string // its webhook configuration
	clientName     string

	who          ociauth.Config
	apiPort      string            // of the API server of this Pod's cluster
	tenancies    map[string]string // namespace to OCID
	compartments []string
	endpoints    []string // of vaults

	timeout   time.Duration
	scanTime  time.Duration
	drainFor  time.Duration
	logFormat string
	pprof     bool
	version   bool
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func wrong(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// parse reads the command line and rejects what cannot work, before anything is opened.
// It reads the environment variables of Oracle's own tools.
func parse(with process) (options, error) {
	o := options{
		tenancies: make(map[string]string),
		who:       ociauth.FromEnvironment(with.getenv),
		apiPort:   cmp.Or(with.getenv("KUBERNETES_SERVICE_PORT"), "443"),
	}
	flags := flag.NewFlagSet("oke-sign-provider", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.addr, "addr", ":8443", "`address` to answer Gatekeeper on")
	flags.StringVar(&o.healthAddr, "health-addr", ":8081", "`address` for /healthz, /readyz and /metrics, without TLS")
	flags.StringVar(&o.tlsCert, "tls-cert", "", "PEM `file` with the serving certificate; the provider reads it again when it changes")
	flags.StringVar(&o.tlsKey, "tls-key", "", "PEM `file` with its private key; the provider reads it again when it changes")
	flags.Func("cert-secret", "`NAMESPACE/NAME` of a Secret in which the replicas make and renew the serving certificate, in place of --tls-cert and --tls-key; they also apply Gatekeeper's Provider objects with its CA", func(s string) (err error) {
		o.certSecret, err = certs.ParseName(s)
		return err
	})
	flags.Func("service", "`NAMESPACE/NAME[:PORT]` of the Service through which Gatekeeper reaches the replicas, for --cert-secret; default port: 443", func(s string) (err error) {
		o.service, err = certs.ParseService(s)
		return err
	})
	flags.StringVar(&o.clientCA, "client-ca", "", "PEM `file` with the CA of the clients that may ask; the provider reads it again when it changes; without this flag and --client-ca-from-gatekeeper, any client may ask")
	flags.BoolVar(&o.fromGatekeeper, "client-ca-from-gatekeeper", false, "let only Gatekeeper ask: follow its CA in its ValidatingWebhookConfiguration, and trust a replaced CA for 15 more minutes")
	flags.StringVar(&o.gatekeeper, "gatekeeper-webhooks", certs.GatekeeperWebhooks, "`name` of Gatekeeper's ValidatingWebhookConfiguration")
	flags.StringVar(&o.clientName, "client-name", "", "DNS `name` that a client's certificate must have; default with --client-ca-from-gatekeeper: the webhook's Service, which is gatekeeper-webhook-service.gatekeeper-system.svc in most clusters")
	bindIdentity(flags, &o.who)
	flags.Func("tenancy", "`NAMESPACE=OCID` of a further tenancy whose images are covered; repeat the flag for more", o.addTenancy)
	flags.Func("compartment", "`OCID` of a compartment in which to look for images, in place of the whole tenancy; repeat the flag for more", o.addCompartment)
	flags.Func("vault-endpoint", "`URL` of the management endpoint of a vault, if it does not follow from the OCIDs of the vault's keys; repeat the flag for more", func(s string) error {
		o.endpoints = append(o.endpoints, s)
		return nil
	})
	flags.DurationVar(&o.timeout, "timeout", 1300*time.Millisecond, "`time` for one request; must be below the timeout of the Provider object, which must be below the timeout of Gatekeeper's webhook")
	flags.DurationVar(&o.scanTime, "scan-timeout", 300*time.Millisecond, "`time` for one request about scans, which have another Provider object; slower lookups continue in the background")
	flags.DurationVar(&o.drainFor, "drain", 5*time.Second, "`time` to continue answering after a signal to stop, while callers move to other replicas")
	flags.BoolVar(&o.pprof, "pprof", false, "also serve /debug/pprof on the health address")
	flags.StringVar(&o.logFormat, "log-format", "json", "`format` of the log on standard error: json or text")
	flags.BoolVar(&o.version, "version", false, "print the version and exit")

	if err := flags.Parse(with.args); err != nil {
		if err == flag.ErrHelp { //nolint:errorlint // package flag documents this very value
			help(with.stdout, flags)
			return options{}, err
		}
		return options{}, usageError{err}
	}
	if flags.NArg() > 0 {
		return options{}, wrong("unexpected argument %q: use flags only; run oke-sign-provider --help", flags.Arg(0))
	}
	if o.version {
		return o, nil
	}
	return o, o.validate()
}

// bindIdentity binds the flags that say how to sign in. Their defaults come from the
// environment, and help does not show them.
func bindIdentity(flags *flag.FlagSet, who *ociauth.Config) {
	text := func(p *string, name, usage string) {
		flags.StringVar(p, name, *p, usage)
		flags.Lookup(name).DefValue = ""
	}
	text(&who.Kind, "auth", "`kind` of identity for OCI, with the names of Oracle's CLI: api_key, security_token, instance_principal (the compute instance of this process), instance_obo_user (a user whose delegation token is on the instance), resource_principal (from OCI_RESOURCE_PRINCIPAL_*), oke_workload_identity (a service account in an enhanced OKE cluster) or oidc (a token that an identity domain trusts); default: OCI_CLI_AUTH, else the profile's authentication_type, else api_key")
	text(&who.ConfigFile, "config-file", "OCI configuration `file`; default: OCI_CLI_CONFIG_FILE, else OCI_CONFIG_FILE, else ~/.oci/config")
	text(&who.Profile, "profile", "`profile` in the configuration file; default: OCI_CLI_PROFILE, else DEFAULT")
	text(&who.Region, "region", "`region` of a workload's cluster, of a resource or for OIDC; replaces the region of the configuration file or of the instance; default: OCI_CLI_REGION, else OCI_RESOURCE_PRINCIPAL_REGION")
	text(&who.Workload.Dir, "service-account", "`directory` with the service account's token and the cluster's ca.crt; default: where Kubernetes mounts them")
	text(&who.OIDC.Domain, "oidc-domain", "`URL` of the identity domain that trusts the OIDC token; default: OCI_DOMAIN_URL")
	text(&who.OIDC.Client, "oidc-client", "`id` of the confidential application in the identity domain; default: OCI_OIDC_CLIENT_ID")
	text(&who.OIDC.SecretFile, "oidc-client-secret-file", "`file` with the application's secret; default: the secret in OCI_OIDC_CLIENT_SECRET")
	text(&who.OIDC.TokenFile, "oidc-token-file", "`file` with the OIDC token, read for each exchange; default: the token in OCI_OIDC_TOKEN, else GitHub's variables")
}

func (o *options) addTenancy(s string) error {
	namespace, ocid, ok := strings.Cut(s, "=")
	if !ok || namespace == "" || !strings.HasPrefix(ocid, "ocid1.tenancy.") {
		return fmt.Errorf("want NAMESPACE=OCID, for instance idwpqivumvev=ocid1.tenancy.oc1..aaaa")
	}
	if known, again := o.tenancies[namespace]; again && known != ocid {
		return fmt.Errorf("namespace %s is given with two tenancies", namespace)
	}
	o.tenancies[namespace] = ocid
	return nil
}

func (o *options) addCompartment(s string) error {
	if !strings.HasPrefix(s, "ocid1.compartment.") && !strings.HasPrefix(s, "ocid1.tenancy.") {
		return fmt.Errorf("want the OCID of a compartment or of a tenancy")
	}
	o.compartments = append(o.compartments, s)
	return nil
}

func (o *options) validate() error {
	const (
		most     = 25 * time.Second // the API server waits 30 s for a webhook at most
		maxDrain = time.Minute
	)
	switch {
	case o.ownCertificate() && (o.tlsCert != "" || o.tlsKey != ""):
		return wrong("--cert-secret makes a certificate, and --tls-cert and --tls-key name one: set only one of the two")
	case o.ownCertificate() && o.service.Name == "":
		return wrong("--cert-secret needs --service: the certificate is for its name")
	case !o.ownCertificate() && o.service.Name != "":
		return wrong("--service without --cert-secret: a certificate in files has its own name; remove --service")
	case !o.ownCertificate() && (o.tlsCert == "" || o.tlsKey == ""):
		return wrong("set --cert-secret and --service, or --tls-cert and --tls-key: Gatekeeper requires TLS")
	case o.fromGatekeeper && o.clientCA != "":
		return wrong("--client-ca and --client-ca-from-gatekeeper: set only one of the two")
	case o.clientName != "" && o.clientCA == "" && !o.fromGatekeeper:
		return wrong("--client-name without --client-ca: set the CA that signs the name")
	case o.gatekeeper != certs.GatekeeperWebhooks && !o.fromGatekeeper:
		return wrong("--gatekeeper-webhooks without --client-ca-from-gatekeeper has no effect: set both")
	case o.inCluster() && o.who.Workload.KubernetesHost == "":
		return wrong("--cert-secret and --client-ca-from-gatekeeper are for Pods: KUBERNETES_SERVICE_HOST is not set")
	case o.timeout <= 0 || o.timeout > most:
		return wrong("--timeout %s: want more than 0 and at most %s", o.timeout, most)
	case o.scanTime <= 0 || o.scanTime > most:
		return wrong("--scan-timeout %s: want more than 0 and at most %s", o.scanTime, most)
	case o.ownCertificate() && o.timeout >= waits(server.SignaturesPath):
		return wrong("--timeout %s: want less than %s, which the Provider object that is applied has Gatekeeper wait", o.timeout, waits(server.SignaturesPath))
	case o.ownCertificate() && o.scanTime >= waits(server.ScansPath):
		return wrong("--scan-timeout %s: want less than %s, which the Provider object that is applied has Gatekeeper wait", o.scanTime, waits(server.ScansPath))
	case o.drainFor < 0 || o.drainFor > maxDrain:
		return wrong("--drain %s: want at most %s", o.drainFor, maxDrain)
	case o.logFormat != "json" && o.logFormat != "text":
		return wrong("--log-format %q: want json or text", o.logFormat)
	}
	return o.validateIdentity()
}

func (o *options) validateIdentity() error {
	switch kind := o.who.Kind; {
	case kind != "" && !slices.Contains(ociauth.Kinds(), kind):
		return wrong("--auth %q: want %s", kind, strings.Join(ociauth.Kinds(), ", "))
	case kind == ociauth.KindOKEWorkloadIdentity && o.who.Region == "" && o.who.Resource.Region == "":
		return wrong("--auth %s needs --region or OCI_RESOURCE_PRINCIPAL_REGION: a Pod is not told in which region it runs", kind)
	case kind == ociauth.KindOIDC && (o.who.Region == "" || o.who.OIDC.Domain == ""):
		return wrong("--auth %s needs --region and --oidc-domain: the token says neither", kind)
	}
	return nil
}

// waits returns how long Gatekeeper waits for an answer of a path, by the Provider
// objects that this program applies.
func waits(path string) time.Duration {
	for _, p := range providers() {
		if p.Path == path {
			return time.Duration(p.Timeout) * time.Second
		}
	}
	return 0
}

// ownCertificate reports whether this program makes its certificate.
func (o *options) ownCertificate() bool { return o.certSecret.Name != "" }

// inCluster reports whether this program needs the API server.
func (o *options) inCluster() bool { return o.ownCertificate() || o.fromGatekeeper }

// handler returns the handler that writes the log.
func (o *options) handler(out io.Writer) slog.Handler {
	if o.logFormat == "text" {
		return slog.NewTextHandler(out, nil)
	}
	return slog.NewJSONHandler(out, nil)
}

// help prints the flags with two dashes.
func help(out io.Writer, flags *flag.FlagSet) {
	var b strings.Builder
	b.WriteString(`oke-sign-provider tells Gatekeeper which images are signed, in OCI, by keys that
the policy allows, and what OCI's scans have found in them.

Usage: oke-sign-provider --cert-secret NAMESPACE/NAME
           --service NAMESPACE/NAME:PORT --client-ca-from-gatekeeper [flags]
       oke-sign-provider --tls-cert FILE --tls-key FILE --client-ca FILE [flags]

`)
	flags.VisitAll(func(f *flag.Flag) {
		name, usage := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(&b, "  %s\n", strings.TrimSpace("--"+f.Name+" "+name))
		const indent, width = "        ", 80
		line := indent
		for word := range strings.FieldsSeq(usage) {
			if len(line)+len(word) > width {
				b.WriteString(strings.TrimRight(line, " ") + "\n")
				line = indent
			}
			line += word + " "
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	})
	_, _ = io.WriteString(out, b.String()) // a closed stream is not an error of help
}

// process is the program's environment.
type process struct {
	args           []string
	getenv         func(string) string
	stdout, stderr io.Writer
}

// providers are the Provider objects by which Gatekeeper asks. If all of their time-outs
// pass, a denial must still leave before the webhook's time-out. Our values for
// Gatekeeper's chart set 5 s.
func providers() []certs.Provider {
	return []certs.Provider{
		{Name: "oke-sign", Path: server.SignaturesPath, Timeout: 2},
		{Name: "oke-sign-scans", Path: server.ScansPath, Timeout: 1},
		{Name: "oke-sign-digests", Path: server.DigestsPath, Timeout: 1},
	}
}
