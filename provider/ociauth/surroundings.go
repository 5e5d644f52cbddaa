package ociauth

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Surrounding is a place that OCI, or an issuer of OIDC tokens, knows.
type Surrounding struct {
	Place string   // such as "OCI Cloud Shell"
	Flags []string // that sign in there; a word in capitals is to be filled in
}

// Surroundings says where this process seems to run, the likeliest first. It looks
// at the environment and files, and asks the metadata service for 300 ms. It
// decides nothing: whoever signs in says how.
func Surroundings(ctx context.Context, cfg Config, getenv func(string) string) []Surrounding {
	var found []Surrounding
	see := func(is bool, place string, flags ...string) {
		if is {
			found = append(found, Surrounding{place, flags})
		}
	}
	region := func(given string) []string {
		if cfg.Region != "" || given != "" {
			return nil
		}
		return []string{"--region", "REGION"}
	}
	auth := func(kind string, more ...string) []string { return append([]string{"--auth", kind}, more...) }
	oidc := auth(KindOIDC)
	if cfg.OIDC.Domain == "" {
		oidc = append(oidc, "--oidc-domain", "URL")
	}
	if cfg.OIDC.Client == "" {
		oidc = append(oidc, "--oidc-client", "ID")
	}
	oidc = append(oidc, region("")...)

	see(exists(cloudShellConfig) && getenv("OCI_CLI_CONFIG_FILE") == "", "OCI Cloud Shell",
		auth(KindInstanceOBOUser, "--config-file", cloudShellConfig, "--profile", cmp.Or(cfg.Profile, cfg.Region, "REGION"))...)
	see(cfg.Resource.Version != "", "a resource of OCI, such as a DevOps build (OCI_RESOURCE_PRINCIPAL_VERSION is set)",
		auth(KindResourcePrincipal, region(cfg.Resource.Region)...)...)
	see(getenv("GITHUB_ACTIONS") == "true", "GitHub Actions", oidc...)
	if cfg.OIDC.Token != "" {
		see(getenv("GITLAB_CI") == "true", "GitLab CI", oidc...)
	} else {
		see(getenv("GITLAB_CI") == "true", "GitLab CI", append(oidc, "--oidc-token-file", "FILE")...)
	}
	see(cfg.Workload.KubernetesHost != "", "a Pod of Kubernetes", auth(KindOKEWorkloadIdentity, region(cfg.Resource.Region)...)...)
	see(onInstance(ctx, cfg), "a compute instance of OCI", auth(KindInstancePrincipal)...)
	return found
}

// cloudShellConfig is where Cloud Shell has its configuration file.
const cloudShellConfig = "/etc/oci/config"

func exists(file string) bool {
	_, err := os.Stat(filepath.Clean(file))
	return err == nil
}

// onInstance reports whether a metadata service of OCI answers soon.
func onInstance(ctx context.Context, cfg Config) bool {
	const soon = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	i := &instance{metadata: strings.TrimSuffix(cmp.Or(cfg.Metadata, metadataService), "/")}
	if checkMetadata(i.metadata) != nil {
		return false
	}
	_, err := i.read(ctx, "/instance/region")
	return err == nil
}
