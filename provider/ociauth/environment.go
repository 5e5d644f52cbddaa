package ociauth

import (
	"cmp"

	"github.com/oke-sign/oke-sign/provider/oci"
)

// FromEnvironment returns the configuration that the environment variables of Oracle's
// own tools give. README.md of the plugin lists the variables. None of them chooses a
// host of OCI: hosts come from package image's table.
func FromEnvironment(getenv func(string) string) Config {
	return Config{
		Kind: getenv("OCI_CLI_AUTH"),
		// Oracle's CLI reads the first variable, and Oracle's SDKs the second.
		ConfigFile: cmp.Or(getenv("OCI_CLI_CONFIG_FILE"), getenv("OCI_CONFIG_FILE")),
		Profile:    getenv("OCI_CLI_PROFILE"),
		Region:     getenv("OCI_CLI_REGION"),
		Client:     oci.Config{CAFile: cmp.Or(getenv("OCI_CLI_CERT_BUNDLE"), getenv("OCI_DEFAULT_CERTS_PATH"))},
		Metadata:   getenv("OCI_METADATA_BASE_URL"),
		Override: Override{
			User:                getenv("OCI_CLI_USER"),
			Tenancy:             getenv("OCI_CLI_TENANCY"),
			Fingerprint:         getenv("OCI_CLI_FINGERPRINT"),
			KeyFile:             getenv("OCI_CLI_KEY_FILE"),
			KeyContent:          getenv("OCI_CLI_KEY_CONTENT"),
			Passphrase:          getenv("OCI_CLI_PASSPHRASE"),
			SecurityTokenFile:   getenv("OCI_CLI_SECURITY_TOKEN_FILE"),
			DelegationTokenFile: getenv("OCI_CLI_DELEGATION_TOKEN_FILE"),
		},
		Workload: Workload{
			KubernetesHost: getenv("KUBERNETES_SERVICE_HOST"),
			CAFile:         getenv("OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH"),
			TokenFile:      getenv("OCI_KUBERNETES_SERVICE_ACCOUNT_TOKEN_PATH"),
			Token:          getenv("OCI_KUBERNETES_SERVICE_ACCOUNT_TOKEN_STRING"),
		},
		Resource: resourceFromEnvironment(getenv),
		OIDC: OIDC{
			Domain:       getenv("OCI_DOMAIN_URL"),
			Client:       getenv("OCI_OIDC_CLIENT_ID"),
			Secret:       getenv("OCI_OIDC_CLIENT_SECRET"),
			Audience:     getenv("OCI_OIDC_AUDIENCE"),
			Token:        getenv("OCI_OIDC_TOKEN"),
			RequestURL:   getenv("ACTIONS_ID_TOKEN_REQUEST_URL"),
			RequestToken: getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
		},
	}
}

func resourceFromEnvironment(getenv func(string) string) Resource {
	of := func(level string) func(string) string {
		return func(name string) string { return getenv("OCI_RESOURCE_PRINCIPAL_" + name + level) }
	}
	read := func(get func(string) string) Resource {
		return Resource{
			Version:         get("VERSION"),
			Token:           get("RPST"),
			Key:             get("PRIVATE_PEM"),
			Passphrase:      get("PRIVATE_PEM_PASSPHRASE"),
			Region:          get("REGION"),
			TokenEndpoint:   get("RPT_ENDPOINT"),
			TokenPath:       get("RPT_PATH"),
			SessionEndpoint: get("RPST_ENDPOINT"),
			ID:              cmp.Or(get("RESOURCE_ID"), get("RPT_ID")),
			Tenancy:         get("TENANCY_ID"),
			Context:         get("SECURITY_CONTEXT"),
		}
	}
	r := read(of(""))
	if r.Version == resourceNested {
		leaf := read(of("_FOR_LEAF_RESOURCE"))
		r.Leaf = &leaf
		r.TokenEndpoint = of("_FOR_PARENT_RESOURCE")("RPT_URL")
		r.SessionEndpoint = of("_FOR_PARENT_RESOURCE")("RPST_ENDPOINT")
	}
	return r
}
