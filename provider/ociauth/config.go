// Package ociauth signs this process in to OCI: it finds out the identity, and signs
// requests with it.
//
// [SignIn] returns an OCI client of package oci. Each auth kind is a way to get a key
// and a key id that OCI accepts: an API key, or a session token with its key. A token
// that a service issued is replaced at half of its life.
//
// It takes the signer from the OCI SDK, and no code that reads configuration or asks
// for tokens. Endpoints come from package image's table. Where the environment names
// an endpoint, it must be in the same realm, on this machine, or of GitHub.
//
// It trusts the configuration file and the environment, the certificate authorities of
// the machine and of the cluster, and the instance's metadata service. It does not
// check the signatures of tokens: OCI does.
package ociauth

import "github.com/oke-sign/oke-sign/provider/oci"

// The auth kinds, by the names of Oracle's CLI.
const (
	KindAPIKey              = "api_key"               // an API key of a profile, or its session token in a profile without user
	KindSecurityToken       = "security_token"        // the session token of a profile
	KindInstancePrincipal   = "instance_principal"    // the compute instance that this process runs on
	KindInstanceOBOUser     = "instance_obo_user"     // a user whose delegation token the instance has: Cloud Shell
	KindResourcePrincipal   = "resource_principal"    // a resource that OCI runs code for and gives a token to
	KindOKEWorkloadIdentity = "oke_workload_identity" // the service account of a Pod in an enhanced OKE cluster
	KindOIDC                = "oidc"                  // a job whose OIDC token an identity domain trusts; Oracle's CLI does not have it
)

// Kinds lists the auth kinds.
func Kinds() []string {
	return []string{
		KindAPIKey, KindSecurityToken, KindInstancePrincipal, KindInstanceOBOUser,
		KindResourcePrincipal, KindOKEWorkloadIdentity, KindOIDC,
	}
}

// Config says how to sign in. [FromEnvironment] fills it as Oracle's CLI would.
type Config struct {
	// Kind is one of the auth kinds. Empty means what the profile's
	// authentication_type says, or KindAPIKey.
	Kind string
	// ConfigFile is the OCI configuration file. Empty means ~/.oci/config.
	ConfigFile string
	// Profile is the profile in it. Empty means DEFAULT.
	Profile string
	// Override holds values that replace those of the profile.
	Override Override
	// Region replaces the profile's or the instance's region, if not empty. A
	// workload, a resource and OIDC need it.
	Region string
	// Workload says where a Pod finds the endpoint and the files of its cluster.
	Workload Workload
	// Metadata is the URL of the instance's metadata service, which Oracle's own
	// tools take from OCI_METADATA_BASE_URL. Empty means OCI's address. Only this
	// machine and its link may be named.
	Metadata string
	// Resource is what OCI gives to a resource.
	Resource Resource
	// OIDC says how to exchange an OIDC token for a session token.
	OIDC OIDC

	// Client bounds the calls to OCI, those that get a token included.
	Client oci.Config
}

// Override holds values that replace those of the profile. Oracle's CLI takes them
// from the environment. If they suffice for a kind, no file is read.
type Override struct {
	User, Tenancy, Fingerprint string
	KeyFile                    string
	KeyContent                 string // the private key itself, in PEM
	Passphrase                 string
	SecurityTokenFile          string
	DelegationTokenFile        string
}

// ServiceAccount is the directory where Kubernetes mounts a Pod's token and its
// cluster's ca.crt.
const ServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// Workload says where a Pod finds the endpoint and the files of its cluster.
type Workload struct {
	// KubernetesHost is the address of the cluster: KUBERNETES_SERVICE_HOST.
	KubernetesHost string
	// Dir is the directory with the service account's token and its cluster's
	// ca.crt. Empty means where Kubernetes mounts them.
	Dir string
	// CAFile replaces the directory's ca.crt: OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH.
	CAFile string
	// TokenFile replaces the directory's token: OCI_KUBERNETES_SERVICE_ACCOUNT_TOKEN_PATH.
	TokenFile string
	// Token is the token itself: OCI_KUBERNETES_SERVICE_ACCOUNT_TOKEN_STRING.
	Token string
}

// The versions of resource principals. Each gets its token in another way.
const (
	resourceInstance = "1.1"   // a service gives it to the instance that the resource runs on
	resourceKey      = "2.1"   // a service gives it for the resource's key
	resourceKeyOf    = "2.1.1" // the same, with the tenancy in the key's name
	resourceContext  = "2.1.2" // the same, with a security context
	resourceToken    = "2.2"   // OCI puts it into the environment or a file
	resourceNested   = "3.0"   // a resource inside another; the inner one has a version of the above
)

// Resource is what OCI gives to a resource that it runs code for, in environment
// variables that begin with OCI_RESOURCE_PRINCIPAL_. A token, key or pass phrase that
// begins with a slash is the name of a file, which OCI replaces in time.
type Resource struct {
	Version    string // VERSION
	Region     string // REGION
	Token      string // RPST
	Key        string // PRIVATE_PEM
	Passphrase string // PRIVATE_PEM_PASSPHRASE, if there is one

	TokenEndpoint   string // RPT_ENDPOINT, where a service gives the first of two tokens
	TokenPath       string // RPT_PATH there
	SessionEndpoint string // RPST_ENDPOINT, where that is exchanged for the second
	ID              string // RESOURCE_ID or RPT_ID
	Tenancy         string // TENANCY_ID
	Context         string // SECURITY_CONTEXT

	Leaf *Resource // …_FOR_LEAF_RESOURCE, in a nested one
}

// OIDC says how a job exchanges the OIDC token of its issuer for a session token of OCI.
// The identity domain needs a confidential application, and an Identity Propagation
// Trust that maps claims to users.
type OIDC struct {
	// Domain is the URL of the identity domain, such as
	// https://idcs-0123456789abcdef.identity.oraclecloud.com.
	Domain string
	// Client and Secret are those of the confidential application. SecretFile holds
	// the secret in place of Secret.
	Client, Secret, SecretFile string
	// Token is the OIDC token. TokenFile holds it in place of Token, and is read
	// again for each exchange.
	Token, TokenFile string
	// RequestURL and RequestToken get the token of a job of GitHub, if neither Token
	// nor TokenFile is given: ACTIONS_ID_TOKEN_REQUEST_URL and …_TOKEN.
	RequestURL, RequestToken string
	// Audience is the audience of GitHub's token. Empty means https:// and the host
	// of Domain.
	Audience string
}
