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

// callTimeout is for one call to the API server that waits for nothing.
const callTimeout = 10 * time.Second

// Cluster is the cluster that the provider runs in, with the rights of its
// service account.
type Cluster struct {
	core      coreclient.CoreV1Interface
	admission admissionclient.AdmissionregistrationV1Interface
	objects   dynamic.Interface
}

// NewCluster prepares the way to the API server at host and port. It asks it
// nothing. The directory holds the service account's token and the cluster's
// ca.crt, as Kubernetes mounts them; the token is read again when it rotates.
func NewCluster(host, port, dir string) (*Cluster, error) {
	cfg := &rest.Config{
		Host:            "https://" + net.JoinHostPort(host, port),
		BearerTokenFile: filepath.Join(dir, "token"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "ca.crt")},
		UserAgent:       fieldManager,
		// For few and small objects that somebody may want to read on the way.
		ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeJSON, AcceptContentTypes: runtime.ContentTypeJSON},
		// What a proxy is for lies outside of the cluster.
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

// ParseService reads NAMESPACE/NAME or NAMESPACE/NAME:PORT; without one the port
// is that of HTTPS.
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

// host is the name in the provider's URL, and in its certificate.
func (s Service) host() string { return s.Name + "." + s.Namespace + ".svc" }

func (s Service) url(path string) string {
	return "https://" + net.JoinHostPort(s.host(), strconv.Itoa(s.Port)) + path
}
