package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/provider/principal"
	"github.com/oke-sign/oke-sign/provider/server"
)

// options are the flags.
type options struct {
	addr, healthAddr string

	tlsCert, tlsKey string
	certSecret      types.NamespacedName // in place of files
	service         certs.Service

	clientCA       string
	fromGatekeeper bool
	gatekeeper     string // its webhook configuration
	clientName     string

	auth         string
	configFile   string
	profile      string
	region       string
	kubernetes   string // address of the cluster that this runs in
	apiPort      string // of its API server
	account      string // directory of its service account
	metadata     string // address of this instance's
	resource     principal.Resource
	tenancies    map[string]string // namespace to OCID
	compartments []string
	endpoints    []string // of vaults
	ociCA        string   // file of the authorities that OCI's certificates must come from

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

// parse reads the command line and refuses what cannot work, before anything is
// opened. Of the environment it takes what Oracle's own tools take.
func parse(with process) (options, error) {
	o := options{
		tenancies: make(map[string]string),
		ociCA:     with.getenv("OCI_DEFAULT_CERTS_PATH"),

		kubernetes: with.getenv("KUBERNETES_SERVICE_HOST"),
		apiPort:    cmp.Or(with.getenv("KUBERNETES_SERVICE_PORT"), "443"),
		metadata:   with.getenv("OCI_METADATA_BASE_URL"),
		resource: principal.Resource{
			Version: with.getenv("OCI_RESOURCE_PRINCIPAL_VERSION"),
			Token:   with.getenv("OCI_RESOURCE_PRINCIPAL_RPST"),
			Key:     with.getenv("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM"),

			Passphrase: with.getenv("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM_PASSPHRASE"),
		},
	}
	configFile := cmp.Or(with.getenv("OCI_CONFIG_FILE"), with.getenv("OCI_CLI_CONFIG_FILE"))
	flags := flag.NewFlagSet("oke-sign-provider", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.addr, "addr", ":8443", "`address` to answer Gatekeeper on")
	flags.StringVar(&o.healthAddr, "health-addr", ":8081", "`address` for /healthz, /readyz and /metrics, without TLS")
	flags.StringVar(&o.tlsCert, "tls-cert", "", "PEM `file` of the serving certificate; read again when it changes")
	flags.StringVar(&o.tlsKey, "tls-key", "", "PEM `file` of its private key; read again when it changes")
	flags.Func("cert-secret", "`NAMESPACE/NAME` of a Secret in which the replicas make the serving certificate themselves and renew it, in place of --tls-cert and --tls-key; Gatekeeper's Provider objects are then applied with its CA", func(s string) (err error) {
		o.certSecret, err = certs.ParseName(s)
		return err
	})
	flags.Func("service", "`NAMESPACE/NAME[:PORT]` of the Service that Gatekeeper reaches the replicas by, for --cert-secret; port 443 unless it says otherwise", func(s string) (err error) {
		o.service, err = certs.ParseService(s)
		return err
	})
	flags.StringVar(&o.clientCA, "client-ca", "", "PEM `file` of the CA whose clients may ask; read again when it changes; anybody may if neither this nor --client-ca-from-gatekeeper is given")
	flags.BoolVar(&o.fromGatekeeper, "client-ca-from-gatekeeper", false, "let Gatekeeper ask and nobody else: its CA is followed in its ValidatingWebhookConfiguration, and trusted 15 minutes longer when it is replaced")
	flags.StringVar(&o.gatekeeper, "gatekeeper-webhooks", certs.GatekeeperWebhooks, "`name` of that ValidatingWebhookConfiguration")
	flags.StringVar(&o.clientName, "client-name", "", "DNS `name` that a client's certificate must carry; with --client-ca-from-gatekeeper that of the webhook's Service if not given, which is gatekeeper-webhook-service.gatekeeper-system.svc in most clusters")
	flags.StringVar(&o.auth, "auth", principal.KindAPIKey, "`kind` of identity to ask OCI with: api_key (a profile's API key), security_token (a profile's session token), oke_workload_identity (a service account in an enhanced OKE cluster), instance_principal (the compute instance that this runs on) or resource_principal (what OCI says in OCI_RESOURCE_PRINCIPAL_*)")
	flags.StringVar(&o.configFile, "config-file", configFile, "OCI configuration `file`; OCI_CONFIG_FILE or ~/.oci/config if not given")
	flags.StringVar(&o.profile, "profile", "DEFAULT", "`profile` in the configuration file")
	flags.StringVar(&o.region, "region", with.getenv("OCI_RESOURCE_PRINCIPAL_REGION"), "`region` of a workload's cluster or of a resource; the configuration file's or the instance's is replaced by it; OCI_RESOURCE_PRINCIPAL_REGION if not given")
	flags.StringVar(&o.account, "service-account", "", "`directory` of the service account's token and its cluster's ca.crt; where Kubernetes mounts them if not given")
	flags.Func("tenancy", "`NAMESPACE=OCID` of a further tenancy whose images are covered; may be repeated", o.addTenancy)
	flags.Func("compartment", "`OCID` of a compartment to look for images in, instead of the whole tenancy; may be repeated", o.addCompartment)
	flags.Func("vault-endpoint", "`URL` of a vault's management endpoint, where it does not follow from the OCIDs of its keys; may be repeated", func(s string) error {
		o.endpoints = append(o.endpoints, s)
		return nil
	})
	flags.DurationVar(&o.timeout, "timeout", 1300*time.Millisecond, "`time` for one request; keep it below the timeout of the Provider object, and that below the webhook's")
	flags.DurationVar(&o.scanTime, "scan-timeout", 300*time.Millisecond, "`time` for one request about scans, whose Provider object is another; what takes longer is found out meanwhile")
	flags.DurationVar(&o.drainFor, "drain", 5*time.Second, "`time` to go on answering after a signal to stop, until nobody sends questions here any more")
	flags.BoolVar(&o.pprof, "pprof", false, "serve /debug/pprof on the health address as well")
	flags.StringVar(&o.logFormat, "log-format", "json", "`format` of the log on standard error: json or text")
	flags.BoolVar(&o.version, "version", false, "print the version and exit")

	if err := flags.Parse(with.args); err != nil {
		if err == flag.ErrHelp { //nolint:errorlint // the package documents the value itself
			help(with.stdout, flags)
			return options{}, err
		}
		return options{}, usageError{err}
	}
	if flags.NArg() > 0 {
		return options{}, wrong("unexpected argument %q: everything is a flag here", flags.Arg(0))
	}
	if o.version {
		return o, nil
	}
	return o, o.validate()
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
		return wrong("--cert-secret makes a certificate and --tls-cert and --tls-key name one: give one or the other")
	case o.ownCertificate() && o.service.Name == "":
		return wrong("--cert-secret needs --service: the certificate is for its name")
	case !o.ownCertificate() && o.service.Name != "":
		return wrong("--service without --cert-secret: a certificate in files says itself what it is for")
	case !o.ownCertificate() && (o.tlsCert == "" || o.tlsKey == ""):
		return wrong("--tls-cert and --tls-key are required, or --cert-secret and --service: Gatekeeper speaks nothing but TLS")
	case o.fromGatekeeper && o.clientCA != "":
		return wrong("--client-ca and --client-ca-from-gatekeeper: give one or the other")
	case o.clientName != "" && o.clientCA == "" && !o.fromGatekeeper:
		return wrong("--client-name without --client-ca: a name means nothing unless a CA vouches for it")
	case o.gatekeeper != certs.GatekeeperWebhooks && !o.fromGatekeeper:
		return wrong("--gatekeeper-webhooks without --client-ca-from-gatekeeper: nobody reads it, and it keeps nobody out")
	case o.inCluster() && o.kubernetes == "":
		return wrong("--cert-secret and --client-ca-from-gatekeeper are for Pods: KUBERNETES_SERVICE_HOST is not set")
	case o.timeout <= 0 || o.timeout > most:
		return wrong("--timeout %s: want more than 0 and at most %s", o.timeout, most)
	case o.scanTime <= 0 || o.scanTime > most:
		return wrong("--scan-timeout %s: want more than 0 and at most %s", o.scanTime, most)
	case o.ownCertificate() && o.timeout >= waits(server.Path):
		return wrong("--timeout %s: want less than %s, which the Provider object that is applied has Gatekeeper wait", o.timeout, waits(server.Path))
	case o.ownCertificate() && o.scanTime >= waits(server.ScansPath):
		return wrong("--scan-timeout %s: want less than %s, which the Provider object that is applied has Gatekeeper wait", o.scanTime, waits(server.ScansPath))
	case o.drainFor < 0 || o.drainFor > maxDrain:
		return wrong("--drain %s: want at most %s", o.drainFor, maxDrain)
	case o.logFormat != "json" && o.logFormat != "text":
		return wrong("--log-format %q: want json or text", o.logFormat)
	}
	switch o.auth {
	case principal.KindAPIKey, principal.KindSecurityToken, principal.KindInstancePrincipal:
		return nil
	case principal.KindOKEWorkloadIdentity, principal.KindResourcePrincipal:
		if o.region == "" {
			return wrong("--auth %s needs --region or OCI_RESOURCE_PRINCIPAL_REGION: a Pod is not told in which region it runs", o.auth)
		}
		return nil
	default:
		return wrong("--auth %q: want api_key, security_token, oke_workload_identity, instance_principal or resource_principal", o.auth)
	}
}

// waits is how long Gatekeeper waits for an answer on a path by the Provider objects
// that are applied here.
func waits(path string) time.Duration {
	for _, p := range providers() {
		if p.Path == path {
			return time.Duration(p.Timeout) * time.Second
		}
	}
	return 0
}

// ownCertificate says that the certificate is made here.
func (o *options) ownCertificate() bool { return o.certSecret.Name != "" }

// inCluster says that the API server is needed.
func (o *options) inCluster() bool { return o.ownCertificate() || o.fromGatekeeper }

// handler writes the log.
func (o *options) handler(out io.Writer) slog.Handler {
	if o.logFormat == "text" {
		return slog.NewTextHandler(out, nil)
	}
	return slog.NewJSONHandler(out, nil)
}

// help prints the flags with the two dashes that everybody types.
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
	_, _ = io.WriteString(out, b.String()) // who asked for help and closed the stream wants none
}
