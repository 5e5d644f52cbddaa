package ocitest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

const (
	// homeLife is how long tokens live that lie in files of the home, and
	// homeRenewal how often they are replaced.
	homeLife    = time.Hour
	homeRenewal = 20 * time.Minute

	// containers is the compartment that the demo's signers may sign in.
	containers = "containers"
)

// surroundings are the principals of a seeded cloud, one for each place that
// people sign images at. The home has the environment of each.
type surroundings struct {
	Compartment string         `json:"compartment"` // that all of them are in
	Instance    string         `json:"instance"`
	Cluster     string         `json:"cluster"`
	Account     serviceAccount `json:"account"` // of Cluster
	Stage       string         `json:"stage"`   // a build pipeline of DevOps
}

// metadata is the OCID of the instance whose metadata service is below a path
// of the emulator's own address.
func (s surroundings) metadata(base string) string {
	return map[string]string{"": s.Instance}[base]
}

// sowSurroundings makes the principals. They may do nothing yet.
func (c *Cloud) sowSurroundings(region image.Region, compartmentID string) error {
	w, sw := c.world, c.cfg.Switches
	s := surroundings{Compartment: compartmentID}
	for id, kind := range map[*string]string{&s.Instance: instanceType} {
		r, err := w.newResource(region, compartmentID, kind, sw)
		if err != nil {
			return err
		}
		*id = r.ID
	}
	stage, err := w.newResource(region, compartmentID, "devopsbuildpipeline", sw)
	if err != nil {
		return err
	}
	s.Stage = stage.ID
	clusters := oldestFirst(w.Clusters)
	if len(clusters) == 0 {
		clusters = append(clusters, w.newCluster(region, compartmentID, "cluster", sw))
	}
	s.Cluster = clusters[0].ID
	s.Account = serviceAccount{Cluster: s.Cluster, Namespace: "ci", Name: "signer"}
	w.Surroundings = s
	return nil
}

// grantSurroundings lets the principals read and sign, in the words of an
// administrator who sets such things up.
func (c *Cloud) grantSurroundings(t *tenancy) error {
	w, s := c.world, c.world.Surroundings
	for _, g := range [][2]string{
		{"build-instances", fmt.Sprintf("All {instance.compartment.id = '%s'}", s.Compartment)},
		{"build-pipelines", fmt.Sprintf("All {resource.type = 'devopsbuildpipeline', resource.compartment.id = '%s'}", s.Compartment)},
	} {
		if _, err := w.newDynamicGroup(t.ID, g[0], g[1]); err != nil {
			return err
		}
	}
	pod := fmt.Sprintf(" where all {request.principal.type = 'workload', request.principal.namespace = '%s', request.principal.service_account = '%s', request.principal.cluster_id = '%s'}",
		s.Account.Namespace, s.Account.Name, s.Account.Cluster)
	for _, p := range []struct{ name, subject, where string }{
		{"signers", "group signers", ""},
		{"build-machines", "dynamic-group build-instances, build-pipelines", ""},
		{"build-pods", "any-user", pod},
	} {
		statements := signing(p.subject, p.where)
		for _, text := range statements {
			if err := ValidateStatement(text); err != nil {
				return err
			}
		}
		made := &policy{
			born: w.birth(w.globalOCID("policy", t.realm())), Compartment: t.ID, Name: p.name,
			Description: "Sign images and read what there is to verify", Statements: statements,
		}
		w.Policies[made.ID] = made
	}
	return nil
}

// signing are the statements by which somebody may sign the images of the
// compartment containers, and read what the tools of this project read.
func signing(subject, where string) []string {
	var all []string
	for _, rest := range []string{
		"inspect compartments in tenancy", "read repos in tenancy", "read vaults in tenancy", "read keys in tenancy",
		"manage repos in compartment " + containers, "use keys in compartment " + containers,
		"read cluster-family in compartment " + containers, "read vss-family in compartment " + containers,
	} {
		all = append(all, "Allow "+subject+" to "+rest+where)
	}
	return all
}

// variables is an environment in the order in which it is written.
type variables [][2]string

// settled are the variables that one of the surroundings sets and another may
// not have, so that their files can be sourced one after the other.
func settled() []string {
	return []string{
		"OCI_CLI_AUTH", "OCI_CLI_PROFILE", "OCI_CLI_TENANCY", "OCI_CLI_CONFIG_FILE", "OCI_CONFIG_FILE", "OCI_METADATA_BASE_URL",
		"OCI_RESOURCE_PRINCIPAL_VERSION", "OCI_RESOURCE_PRINCIPAL_RPST", "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM", "OCI_RESOURCE_PRINCIPAL_REGION",
		"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH", "OCI_KUBERNETES_SERVICE_ACCOUNT_TOKEN_PATH",
	}
}

func (v variables) write(file string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "unset %s\n", strings.Join(settled(), " "))
	for _, pair := range v {
		fmt.Fprintf(&text, "export %s='%s'\n", pair[0], strings.ReplaceAll(pair[1], "'", `'\''`))
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("writing the home: %w", err)
	}
	return replace(file, []byte(text.String()))
}

// replace writes a file beside the old one and puts it in its place, so that
// nobody reads half of it.
func replace(file string, content []byte) error {
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		return fmt.Errorf("writing the home: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("writing the home: %w", err)
	}
	return nil
}

// writeSurroundings writes env.d, with one file for each kind of identity, and
// what its environment points to.
func (c *Cloud) writeSurroundings() error {
	s := c.world.Surroundings
	if s.Instance == "" {
		return nil // of a state that an older emulator saved
	}
	// Oracle's command line signs images where a configuration file has the region,
	// whatever else says where it is.
	region := [2]string{"OCI_CLI_CONFIG_FILE", filepath.Join(c.cfg.Home, "region")}
	if err := replace(region[1], []byte("[DEFAULT]\nregion="+c.homeRegion()+"\n")); err != nil {
		return err
	}
	profile := variables{{"OCI_CONFIG_FILE", c.ConfigFile()}, {"OCI_CLI_CONFIG_FILE", c.ConfigFile()}}
	kinds := map[string]variables{
		"api_key":            append(slices.Clone(profile), [2]string{"OCI_CLI_PROFILE", ProfileDefault}),
		"security_token":     append(slices.Clone(profile), [2]string{"OCI_CLI_PROFILE", ProfileSession}),
		"instance_principal": {{"OCI_METADATA_BASE_URL", c.url + metadataPath}},
	}
	var err error
	if kinds["resource_principal"], err = c.writeStage(); err != nil {
		return err
	}
	if kinds["oke_workload_identity"], err = c.writePod(); err != nil {
		return err
	}
	for _, kind := range []string{"instance_principal", "resource_principal", "oke_workload_identity"} {
		kinds[kind] = append(kinds[kind], region)
	}
	for kind, env := range kinds {
		if err := append(variables{{"OCI_CLI_AUTH", kind}}, env...).write(filepath.Join(c.cfg.Home, "env.d", kind)); err != nil {
			return err
		}
	}
	c.wait.Go(c.renewHome)
	return nil
}

// renewHome replaces tokens in files, as those do who give them to an instance,
// a build or a Pod.
func (c *Cloud) renewHome() {
	tick := time.NewTicker(homeRenewal)
	defer tick.Stop()
	for {
		select {
		case <-c.closing.Done():
			return
		case <-tick.C:
		}
		for _, renew := range c.renewals {
			if err := renew(); err != nil {
				c.cfg.Log.Error("renewing a token of the home", "error", err)
			}
		}
	}
}

// renewed does something now and whenever the home's tokens are replaced.
func (c *Cloud) renewed(do func() error) error {
	c.renewals = append(c.renewals, do)
	return do()
}

// writeStage writes what DevOps gives a build: a token and its key, in files.
func (c *Cloud) writeStage() (variables, error) {
	dir := filepath.Join(c.cfg.Home, "build")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("writing the home: %w", err)
	}
	key, _, err := c.credentialKeys()
	if err != nil {
		return nil, err
	}
	private, err := pemKey(key, "")
	if err != nil {
		return nil, err
	}
	token, file := filepath.Join(dir, "rpst"), filepath.Join(dir, "private.pem")
	if err := replace(file, private); err != nil {
		return nil, err
	}
	err = c.renewed(func() error {
		c.mu.Lock()
		u := c.world.actor(c.world.Surroundings.Stage)
		c.mu.Unlock()
		if u == nil {
			return nil // gone, and its token with it
		}
		text, err := c.issueResource(u, &key.PublicKey, homeLife)
		if err != nil {
			return err
		}
		return replace(token, []byte(text))
	})
	return variables{
		{"OCI_RESOURCE_PRINCIPAL_VERSION", "2.2"}, {"OCI_RESOURCE_PRINCIPAL_RPST", token},
		{"OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM", file}, {"OCI_RESOURCE_PRINCIPAL_REGION", c.homeRegion()},
	}, err
}

func (c *Cloud) homeRegion() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.world.Tenancies[c.world.Users[c.world.Operator].Tenancy].HomeRegion
}

// writePod writes what Kubernetes gives a Pod, and starts its cluster's endpoint.
func (c *Cloud) writePod() (variables, error) {
	dir := filepath.Join(c.cfg.Home, "pod")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("writing the home: %w", err)
	}
	p, err := c.newProxymux(c.world.Surroundings.Account, dir)
	if err != nil {
		return nil, err
	}
	c.pod = p
	// A Pod reaches its cluster past any proxy.
	return variables{
		{"KUBERNETES_SERVICE_HOST", p.host}, {"KUBERNETES_SERVICE_PORT", "443"},
		{"NO_PROXY", p.host}, {"no_proxy", p.host},
		{"OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH", filepath.Join(dir, "ca.crt")},
		{"OCI_KUBERNETES_SERVICE_ACCOUNT_TOKEN_PATH", filepath.Join(dir, "token")},
		{"OCI_RESOURCE_PRINCIPAL_VERSION", "2.2"}, {"OCI_RESOURCE_PRINCIPAL_REGION", c.homeRegion()},
	}, c.renewed(p.rotate)
}
