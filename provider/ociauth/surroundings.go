package ociauth

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Surrounding is a place where processes can sign in without an API key.
type Surrounding struct {
	Place string   // such as "OCI Cloud Shell"
	Flags []string // the flags that sign in there; the user fills in words in capitals
}

// Surroundings guesses where this process runs, the likeliest place first. It reads the
// environment and files, and gives the metadata service 300 ms. The guess is for hints:
// only the user chooses how to sign in.
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

// cloudShellConfig is the configuration file of Cloud Shell.
const cloudShellConfig = "/etc/oci/config"

func exists(file string) bool {
	_, err := os.Stat(filepath.Clean(file))
	return err == nil
}

// onInstance reports whether a metadata service of OCI answers within 300 ms.
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
