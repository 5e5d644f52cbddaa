package certs

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	admissionclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

const (
	// callTimeout bounds one call to the API server, watches excepted.
	callTimeout = 10 * time.Second
	// fieldManager names the provider to the API server, which reports a conflict to
	// others that apply the same fields.
	fieldManager = "oke-sign-provider"
)

// Cluster is a client of the provider's cluster, with the rights of its service account.
type Cluster struct {
	core      coreclient.CoreV1Interface
	admission admissionclient.AdmissionregistrationV1Interface
	objects   dynamic.Interface
}

// NewCluster returns a client of the API server at host and port. It sends no request.
// The directory has the service account's token and the cluster's ca.crt, as Kubernetes
// mounts them. The client reads the token again when it rotates.
func NewCluster(host, port, dir string) (*Cluster, error) {
	cfg := &rest.Config{
		Host:            "https://" + net.JoinHostPort(host, port),
		BearerTokenFile: filepath.Join(dir, "token"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "ca.crt")},
		UserAgent:       fieldManager,
		// The objects are few and small, and people may want to read them in traces.
		ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeJSON, AcceptContentTypes: runtime.ContentTypeJSON},
		// A proxy leads out of the cluster.
		Proxy:                     func(*http.Request) (*url.URL, error) { return nil, nil },
		WarningHandlerWithContext: rest.NoWarnings{},
	}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("reading the service account: %w", err)
	}
	c := new(Cluster)
	if c.core, err = coreclient.NewForConfigAndClient(cfg, client); err != nil {
		return nil, err
	}
	if c.admission, err = admissionclient.NewForConfigAndClient(cfg, client); err != nil {
		return nil, err
	}
	c.objects, err = dynamic.NewForConfigAndClient(cfg, client)
	return c, err
}

// ParseName reads NAMESPACE/NAME.
func ParseName(s string) (types.NamespacedName, error) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return types.NamespacedName{}, fmt.Errorf("want NAMESPACE/NAME, for instance oke-sign/oke-sign")
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

// Service is where Gatekeeper finds the provider's replicas.
type Service struct {
	types.NamespacedName
	Port int
}

// ParseService reads NAMESPACE/NAME or NAMESPACE/NAME:PORT. The default port is that
// of HTTPS.
func ParseService(s string) (Service, error) {
	where, number, given := strings.Cut(s, ":")
	if !given {
		number = "443"
	}
	name, err := ParseName(where)
	port, wrong := strconv.ParseUint(number, 10, 16)
	if err != nil || wrong != nil || port == 0 || len(validation.IsDNS1035Label(name.Name)) > 0 {
		return Service{}, fmt.Errorf("want NAMESPACE/NAME or NAMESPACE/NAME:PORT, for instance oke-sign/oke-sign:8443")
	}
	return Service{name, int(port)}, nil
}

// host returns the name in the provider's URL and in its certificate.
func (s Service) host() string { return s.Name + "." + s.Namespace + ".svc" }

func (s Service) url(path string) string {
	return "https://" + net.JoinHostPort(s.host(), strconv.Itoa(s.Port)) + path
}
