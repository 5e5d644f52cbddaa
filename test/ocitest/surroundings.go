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
	// homeLife is the lifetime of tokens in files of Home, and homeRenewal the time
	// between replacements.
	homeLife    = time.Hour
	homeRenewal = 20 * time.Minute

	// containers is the compartment whose images the demo's signers may sign.
	containers = "containers"
)

// surroundings are the identities of a seeded cloud, one for each place where people
// sign images. Home has an environment for each place.
type surroundings struct {
	Compartment string         `json:"compartment"` // that all of them are in
	Instance    string         `json:"instance"`
	Cluster     string         `json:"cluster"`
	Account     serviceAccount `json:"account"` // of Cluster
	Stage       string         `json:"stage"`   // a build pipeline of DevOps
	Project     string         `json:"project"` // that the build pipeline is inside of
	Runner      string         `json:"runner"`  // instance that runs the build pipeline
	Shell       string         `json:"shell"`   // instance that Cloud Shell runs on
	ShellUser   string         `json:"shellUser"`
	Domain      string         `json:"domain"`  // host
	Service     string         `json:"service"` // user that the domain takes jobs for
	Job         string         `json:"job"`     // URL at which a job of GitHub asks for its token
}

// The issuers of OIDC tokens that the domain of a seeded cloud trusts, and the
// subjects that the domain maps to its service user.
const (
	githubIssuer  = "https://token.actions.githubusercontent.com"
	githubSubject = "repo:octo-org/octo-repo:ref:refs/heads/main"
	gitlabIssuer  = "https://gitlab.com"
	gitlabSubject = "project_path:octo-org/octo-repo:ref_type:branch:ref:main"
)

// metadata returns the OCID of the instance whose metadata service is below a path
// of the emulator's own address.
func (s surroundings) metadata(base string) string {
	return map[string]string{"": s.Instance, "/cloud-shell": s.Shell, "/build-runner": s.Runner}[base]
}

// sowSurroundings makes the identities. They have no rights yet.
func (c *Cloud) sowSurroundings(region image.Region, compartmentID string) error {
	w, sw := c.world, c.cfg.Switches
	s := surroundings{Compartment: compartmentID}
	t := w.tenancyOf(compartmentID)
	shellTenancy := t
	if sw.ShellTenancy == "oracle" {
		var err error
		if shellTenancy, err = w.newTenancy("cloud-shell", "", region, nil); err != nil {
			return err
		}
	}
	for _, r := range []struct {
		id       *string
		kind, in string
	}{
		{&s.Instance, instanceType, compartmentID}, {&s.Stage, "devopsbuildpipeline", compartmentID}, {&s.Project, "devopsproject", compartmentID},
		{&s.Runner, instanceType, t.ID}, {&s.Shell, instanceType, shellTenancy.ID},
	} {
		made, err := w.newResource(region, r.in, r.kind, sw)
		if err != nil {
			return err
		}
		*r.id = made.ID
	}
	w.Resources[s.Stage].Keeper = s.Runner
	w.Resources[s.Project].Keeper = s.Stage
	if err := c.sowUsers(t, &s); err != nil {
		return err
	}
	clusters := oldestFirst(w.Clusters)
	if len(clusters) == 0 {
		clusters = append(clusters, w.newCluster(region, compartmentID, "cluster", sw))
	}
	s.Cluster = clusters[0].ID
	s.Account = serviceAccount{Cluster: s.Cluster, Namespace: "ci", Name: "signer"}
	w.Surroundings = s
	return nil
}

// sowUsers makes the user of Cloud Shell, and the service user to which an identity
// domain maps jobs of GitHub and GitLab.
func (c *Cloud) sowUsers(t *tenancy, s *surroundings) error {
	w := c.world
	shell, err := w.newUser(t.ID, "shell", "signers")
	if err != nil {
		return err
	}
	service, err := w.newUser(t.ID, "github", "signers")
	if err != nil {
		return err
	}
	s.ShellUser, s.Service = shell.ID, service.ID
	d := w.newDomain(t)
	s.Domain = d.Host
	for _, i := range [][2]string{{githubIssuer, githubSubject}, {gitlabIssuer, gitlabSubject}} {
		if err := c.trustIssuer(d, i[0], "https://"+d.Host); err != nil {
			return err
		}
		last := &d.Trusts[len(d.Trusts)-1]
		last.Rules = append(last.Rules, rule{"sub", i[1], s.Service})
	}
	s.Job, _ = w.newJob(githubIssuer, map[string]any{
		"sub": githubSubject, "repository": "octo-org/octo-repo", "repository_owner": "octo-org", "ref": "refs/heads/main", "ref_type": "branch",
		"workflow": "release", "event_name": "push", "actor": "octocat",
	})
	return nil
}

// grantSurroundings lets the identities read and sign. It uses the statements that
// an administrator would use.
func (c *Cloud) grantSurroundings(t *tenancy) error {
	w, s := c.world, c.world.Surroundings
	for _, g := range [][2]string{
		{"build-instances", fmt.Sprintf("All {instance.compartment.id = '%s'}", s.Compartment)},
		{"build-pipelines", fmt.Sprintf("All {resource.type = 'devopsbuildpipeline', resource.compartment.id = '%s'}", s.Compartment)},
		{"projects", fmt.Sprintf("All {resource.type = 'devopsproject', resource.compartment.id = '%s'}", s.Compartment)},
	} {
		if _, err := w.newDynamicGroup(t.ID, g[0], g[1]); err != nil {
			return err
		}
	}
	pod := fmt.Sprintf(" where all {request.principal.type = 'workload', request.principal.namespace = '%s', request.principal.service_account = '%s', request.principal.cluster_id = '%s'}",
		s.Account.Namespace, s.Account.Name, s.Account.Cluster)
	for _, p := range []struct{ name, subject, where string }{
		{"signers", "group signers", ""},
		{"build-machines", "dynamic-group build-instances, build-pipelines, projects", ""},
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

// signing returns the statements that let a subject sign the images of compartment
// containers, and read what this project's tools read.
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

// variables is an environment in the order of the file.
type variables [][2]string

// settled returns the variables that some surroundings set and others must not have.
// Each file unsets them, so that one shell can source the files in turn.
func settled() []string {
	return []string{
		"OCI_CLI_AUTH", "OCI_CLI_PROFILE", "OCI_CLI_TENANCY", "OCI_CLI_CONFIG_FILE", "OCI_CONFIG_FILE", "OCI_METADATA_BASE_URL",
		"OCI_RESOURCE_PRINCIPAL_RPT_ENDPOINT", "OCI_RESOURCE_PRINCIPAL_RPST_ENDPOINT", "OCI_RESOURCE_PRINCIPAL_RPT_ID",
		"OCI_RESOURCE_PRINCIPAL_VERSION_FOR_LEAF_RESOURCE", "OCI_RESOURCE_PRINCIPAL_RPST_FOR_LEAF_RESOURCE",
		"OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM_FOR_LEAF_RESOURCE", "OCI_RESOURCE_PRINCIPAL_REGION_FOR_LEAF_RESOURCE",
		"OCI_RESOURCE_PRINCIPAL_RPT_URL_FOR_PARENT_RESOURCE", "OCI_RESOURCE_PRINCIPAL_RPST_ENDPOINT_FOR_PARENT_RESOURCE",
		"OCI_CLI_REGION", "OCI_DOMAIN_URL", "OCI_OIDC_CLIENT_ID", "OCI_OIDC_CLIENT_SECRET", "OCI_OIDC_TOKEN",
		"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
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

// replace writes a new file and renames it to the old name, so that no reader sees
// half a file.
func replace(file string, content []byte) error {
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		return fmt.Errorf("writing the home: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("writing the home: %w", err)
	}
	return nil
}

// writeSurroundings writes env.d, with one file for each auth kind, and the files
// that those environments name.
func (c *Cloud) writeSurroundings() error {
	s := c.world.Surroundings
	if s.Instance == "" {
		return nil // the state of an older emulator has none
	}
	// Oracle's command line signs images only if a configuration file has the
	// region. Other sources of the region do not suffice.
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
	if kinds["instance_obo_user"], err = c.writeShell(); err != nil {
		return err
	}
	more, err := c.writeOIDC(kinds)
	if err != nil {
		return err
	}
	c.moreStages(more, kinds["resource_principal"], region)
	for dir, files := range map[string]map[string]variables{"env.d": kinds, "env.more": more} {
		for name, env := range files {
			kind, _, _ := strings.Cut(name, "-")
			if err := append(variables{{"OCI_CLI_AUTH", kind}}, env...).write(filepath.Join(c.cfg.Home, dir, name)); err != nil {
				return err
			}
		}
	}
	c.wait.Go(c.renewHome)
	return nil
}

// renewHome replaces tokens in files, as OCI and Kubernetes do for an instance, a
// build or a Pod.
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

// renewed calls do now, and again at each replacement of the tokens in Home.
func (c *Cloud) renewed(do func() error) error {
	c.renewals = append(c.renewals, do)
	return do()
}

// writeShell writes the files of Cloud Shell: a configuration that has only a
// profile for each region, and a delegation token of its user.
func (c *Cloud) writeShell() (variables, error) {
	dir := filepath.Join(c.cfg.Home, "cloud-shell")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("writing the home: %w", err)
	}
	token, file := filepath.Join(dir, "delegation_token"), filepath.Join(dir, "config")
	c.mu.Lock()
	s := c.world.Surroundings
	t := c.world.Tenancies[c.world.Users[s.ShellUser].Tenancy]
	c.mu.Unlock()
	var config strings.Builder
	for _, region := range t.Regions {
		fmt.Fprintf(&config, "[%s]\ntenancy=%s\nregion=%s\nauthentication_type=instance_principal\ndelegation_token_file=%s\n\n", region, t.ID, region, token)
	}
	if err := replace(file, []byte(config.String())); err != nil {
		return nil, err
	}
	err := c.renewed(func() error {
		c.mu.Lock()
		u := c.world.Users[s.ShellUser]
		c.mu.Unlock()
		if u == nil {
			return nil // the user is deleted, so there is no token to renew
		}
		text, err := c.issueDelegation(u, s.Shell, homeLife)
		if err != nil {
			return err
		}
		return replace(token, []byte(text+"\n"))
	})
	return variables{
		{"OCI_CLI_CONFIG_FILE", file}, {"OCI_CONFIG_FILE", file}, {"OCI_CLI_PROFILE", t.HomeRegion}, {"OCI_CLI_TENANCY", t.ID},
		{"OCI_METADATA_BASE_URL", c.url + "/cloud-shell" + metadataPath},
	}, err
}

// writeOIDC adds a job of GitHub to the kinds. It returns a job of GitLab, whose
// token is in its environment.
func (c *Cloud) writeOIDC(kinds map[string]variables) (map[string]variables, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.world.Surroundings
	d := c.world.Domains[s.Domain]
	job := c.world.jobAt(s.Job)
	if d == nil || job == nil {
		return nil, fmt.Errorf("writing the home: the identity domain or its job is gone")
	}
	both := variables{{"OCI_DOMAIN_URL", "https://" + d.Host}, {"OCI_CLI_REGION", c.world.Tenancies[d.Tenancy].HomeRegion}}
	for id, secret := range d.Clients {
		both = append(both, [2]string{"OCI_OIDC_CLIENT_ID", id}, [2]string{"OCI_OIDC_CLIENT_SECRET", secret})
	}
	token, err := c.oidcToken(gitlabIssuer, map[string]any{
		"sub": gitlabSubject, "aud": "https://" + d.Host, "project_path": "octo-org/octo-repo", "ref": "main", "ref_type": "branch",
	}, sessionLife)
	kinds["oidc"] = append(slices.Clone(both), [2]string{"ACTIONS_ID_TOKEN_REQUEST_URL", s.Job}, [2]string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN", job.Token})
	return map[string]variables{"oidc-gitlab": append(both, [2]string{"OCI_OIDC_TOKEN", token})}, err
}

// moreStages adds the build pipeline's surroundings with the older and the nested
// version of resource principals.
func (c *Cloud) moreStages(more map[string]variables, stage variables, region [2]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, r := c.world.Surroundings, parseRegion(c.world.Tenancies[c.world.Users[c.world.Operator].Tenancy].HomeRegion)
	auth := "https://auth." + r.ID() + "." + r.Domain()
	more["resource_principal-1.1"] = variables{
		{"OCI_RESOURCE_PRINCIPAL_VERSION", "1.1"}, {"OCI_RESOURCE_PRINCIPAL_RPT_ENDPOINT", devopsEndpoint(r)},
		{"OCI_RESOURCE_PRINCIPAL_RPST_ENDPOINT", auth}, {"OCI_RESOURCE_PRINCIPAL_RPT_ID", s.Stage},
		{"OCI_METADATA_BASE_URL", c.url + "/build-runner" + metadataPath}, region,
	}
	nested := variables{
		{"OCI_RESOURCE_PRINCIPAL_VERSION", "3.0"}, {"OCI_RESOURCE_PRINCIPAL_RPST_ENDPOINT_FOR_PARENT_RESOURCE", auth},
		{"OCI_RESOURCE_PRINCIPAL_RPT_URL_FOR_PARENT_RESOURCE", devopsEndpoint(r) + strings.ReplaceAll(resourcePath, "{id}", s.Project)}, region,
	}
	for _, pair := range stage {
		if strings.HasPrefix(pair[0], "OCI_RESOURCE_PRINCIPAL_") {
			nested = append(nested, [2]string{pair[0] + "_FOR_LEAF_RESOURCE", pair[1]})
		}
	}
	more["resource_principal-3.0"] = nested
}

// writeStage writes the files that DevOps gives to a build: a token and its key.
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
			return nil // the resource is deleted, so there is no token to renew
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

// writePod writes the files that Kubernetes gives to a Pod, and starts its cluster's
// endpoint.
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
	// A Pod connects to its cluster without a proxy.
	return variables{
		{"KUBERNETES_SERVICE_HOST", p.host}, {"KUBERNETES_SERVICE_PORT", "443"},
		{"NO_PROXY", p.host}, {"no_proxy", p.host},
		{"OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH", filepath.Join(dir, "ca.crt")},
		{"OCI_KUBERNETES_SERVICE_ACCOUNT_TOKEN_PATH", filepath.Join(dir, "token")},
		{"OCI_RESOURCE_PRINCIPAL_VERSION", "2.2"}, {"OCI_RESOURCE_PRINCIPAL_REGION", c.homeRegion()},
	}, c.renewed(p.rotate)
}
