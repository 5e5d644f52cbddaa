package ocitest_test

import (
	"context"
	"regexp"
	"slices"
	"testing"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/identity"
	"github.com/oracle/oci-go-sdk/v65/keymanagement"
	"github.com/oracle/oci-go-sdk/v65/objectstorage"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// TestPermissions checks that a statement gives a user its rights and no others.
func TestPermissions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.ListDenied, s.LookupPermission = "404", "REPOSITORY_READ" })})
	team := tenancy.NewCompartment("team", "")
	inner := tenancy.NewCompartment("inner", team)
	tenancy.NewRepository("team/web", team)
	image := tenancy.NewImage("team/web", "v1")
	tenancy.NewImage("root/web", "v1")
	vault := tenancy.NewVault("v", team)
	key, other := vault.NewKey("k", ocitest.RSA2048), vault.NewKey("o", ocitest.RSA2048)
	admin := newClients(t, tenancy.Admin())
	managementEndpoint, cryptoEndpoint := *admin.vault(vault).ManagementEndpoint, *admin.vault(vault).CryptoEndpoint

	operations := map[string]func(*clients) error{
		"ListContainerImages": func(c *clients) error {
			_, err := c.artifacts.ListContainerImages(ctx, artifacts.ListContainerImagesRequest{CompartmentId: &team})
			return err
		},
		"GetContainerImage": func(c *clients) error {
			_, err := c.artifacts.GetContainerImage(ctx, artifacts.GetContainerImageRequest{ImageId: &image.ID})
			return err
		},
		"Lookup": func(c *clients) error {
			_, err := c.artifacts.LookupContainerImageByUri(ctx, artifacts.LookupContainerImageByUriRequest{
				LookupContainerImageByUriDetails: artifacts.LookupContainerImageByUriDetails{ImageUri: common.String(tenancy.Namespace + "/team/web:v1")},
			})
			return err
		},
		"LookupInRoot": func(c *clients) error {
			_, err := c.artifacts.LookupContainerImageByUri(ctx, artifacts.LookupContainerImageByUriRequest{
				LookupContainerImageByUriDetails: artifacts.LookupContainerImageByUriDetails{ImageUri: common.String(tenancy.Namespace + "/root/web:v1")},
			})
			return err
		},
		"DeleteVersion": func(c *clients) error { // of a version that is not there: 404 either way, but for another reason
			_, err := c.artifacts.CreateContainerRepository(ctx, artifacts.CreateContainerRepositoryRequest{
				CreateContainerRepositoryDetails: artifacts.CreateContainerRepositoryDetails{CompartmentId: &inner, DisplayName: common.String("team/web")},
			})
			if f, ok := common.IsServiceError(err); ok && f.GetHTTPStatusCode() == 409 {
				return nil // allowed, but the name is taken
			}
			return err
		},
		"GetKey": func(c *clients) error {
			m, err := keymanagement.NewKmsManagementClientWithConfigurationProvider(c.config, managementEndpoint)
			if err != nil {
				t.Fatal(err)
			}
			_, err = m.GetKey(ctx, keymanagement.GetKeyRequest{KeyId: &key.ID})
			return err
		},
		"GetOtherKey": func(c *clients) error {
			m, err := keymanagement.NewKmsManagementClientWithConfigurationProvider(c.config, managementEndpoint)
			if err != nil {
				t.Fatal(err)
			}
			_, err = m.GetKey(ctx, keymanagement.GetKeyRequest{KeyId: &other.ID})
			return err
		},
		"Sign": func(c *clients) error {
			m, err := keymanagement.NewKmsCryptoClientWithConfigurationProvider(c.config, cryptoEndpoint)
			if err != nil {
				t.Fatal(err)
			}
			_, err = m.Sign(ctx, keymanagement.SignRequest{SignDataDetails: keymanagement.SignDataDetails{Message: common.String("aGk="), KeyId: &key.ID, SigningAlgorithm: pss256}})
			return err
		},
		"ListVaults": func(c *clients) error {
			_, err := c.vaults.ListVaults(ctx, keymanagement.ListVaultsRequest{CompartmentId: &team})
			return err
		},
		"ListCompartments": func(c *clients) error {
			_, err := c.identity.ListCompartments(ctx, identity.ListCompartmentsRequest{CompartmentId: &tenancy.ID})
			return err
		},
		"GetNamespace": func(c *clients) error {
			_, err := c.storage.GetNamespace(ctx, objectstorage.GetNamespaceRequest{})
			return err
		},
	}
	for name, tt := range map[string]struct {
		statements []string
		want       []string
	}{
		"nothing": {nil, nil},
		"inspect repos": {
			[]string{"Allow user NAME to inspect repos in compartment team"}, []string{"ListContainerImages"},
		},
		"read repos, in upper case": {
			[]string{"ALLOW USER NAME TO READ REPOS IN COMPARTMENT TEAM"}, []string{"ListContainerImages", "GetContainerImage", "Lookup"},
		},
		"read repos in the tenancy": {
			[]string{"Allow user NAME to read repos in tenancy"}, []string{"ListContainerImages", "GetContainerImage", "Lookup", "LookupInRoot"},
		},
		"read repos, by name": {
			[]string{"Allow user NAME to read repos in tenancy where target.repo.name = /root*/"}, []string{"LookupInRoot"},
		},
		"manage repos": {
			[]string{"Allow user NAME to manage repos in compartment team"},
			[]string{"ListContainerImages", "GetContainerImage", "Lookup", "DeleteVersion"},
		},
		"manage repos in a compartment below": {
			[]string{"Allow user NAME to manage repos in compartment team:inner"}, []string{"DeleteVersion"},
		},
		"one permission": {
			[]string{"Allow user NAME to {REPOSITORY_READ} in compartment team"}, []string{"GetContainerImage", "Lookup"},
		},
		"use keys": {
			[]string{"Allow user NAME to use keys in compartment team"}, []string{"GetKey", "GetOtherKey", "Sign"},
		},
		"read one key": {
			[]string{"Allow user NAME to read keys in tenancy where target.key.id = '" + key.ID + "'"}, []string{"GetKey"},
		},
		"one operation": {
			[]string{"Allow user NAME to {KEY_READ, KEY_SIGN} in tenancy where all {request.operation = 'Sign', target.key.id = '" + key.ID + "'}"}, []string{"Sign"},
		},
		"either of two conditions": {
			[]string{"Allow user NAME to use keys in tenancy where any {request.operation='Sign', target.key.id='" + other.ID + "'}"}, []string{"GetOtherKey", "Sign"},
		},
		"a negated condition": {
			[]string{"Allow user NAME to use keys in tenancy where target.key.id != '" + other.ID + "'"}, []string{"GetKey", "Sign"},
		},
		"a condition on a missing variable": {
			[]string{"Allow user NAME to read all-resources in tenancy where target.key.id != 'x'"}, []string{"GetKey", "GetOtherKey"},
		},
		"another user": {
			[]string{"Allow user somebody to manage all-resources in tenancy"}, nil,
		},
		"any user, by id": {
			[]string{"Allow any-user to inspect vaults in tenancy where request.user.id = 'ID'"}, []string{"ListVaults"},
		},
		"compartments": {
			[]string{"Allow user NAME to inspect compartments in tenancy"}, []string{"ListCompartments"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			user := tenancy.NewUser("u-" + t.Name()[len("TestPermissions/"):])
			for _, s := range tt.statements {
				tenancy.Allow(replaceWords(s, map[string]string{"NAME": "'" + user.Name + "'", "ID": user.ID}))
			}
			c := newClients(t, user)
			want := append([]string{"GetNamespace"}, tt.want...) // which everybody may
			for operation, do := range operations {
				got := code(t, do(c))
				if slices.Contains(want, operation) != (got == "") {
					t.Errorf("%s: code %q, allowed %t", operation, got, slices.Contains(want, operation))
				}
				if got != "" && got != "NotAuthorizedOrNotFound" {
					t.Errorf("%s: code %q, want NotAuthorizedOrNotFound", operation, got)
				}
			}
		})
	}
}

func TestListsOverTheTenancy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		setting   string
		statement string
		want      []string // repositories
		wantCode  string
	}{
		"right on the root":                {"404", "Allow user u to inspect repos in tenancy", []string{"below", "beside", "root"}, ""},
		"right on a compartment, 404":      {"404", "Allow user u to inspect repos in compartment below", nil, "NotAuthorizedOrNotFound"},
		"right on a compartment, filtered": {"filtered", "Allow user u to inspect repos in compartment below", []string{"below"}, ""},
		"right on a compartment, all":      {"all", "Allow user u to inspect repos in compartment below", []string{"below", "beside", "root"}, ""},
		"no right, all":                    {"all", "Allow user u to inspect keys in tenancy", nil, "NotAuthorizedOrNotFound"},
		"no right, filtered to nothing":    {"filtered", "Allow user u to inspect keys in tenancy", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.SubtreeWithoutRoot, s.EmptyPages = tt.setting, false })})
			for _, compartment := range []string{"below", "beside"} {
				tenancy.NewRepository(compartment, tenancy.NewCompartment(compartment, ""))
			}
			tenancy.NewRepository("root", "")
			tenancy.Allow(tt.statement)
			c := newClients(t, tenancy.NewUser("u"))
			res, err := c.artifacts.ListContainerRepositories(context.Background(), artifacts.ListContainerRepositoriesRequest{
				CompartmentId: &tenancy.ID, CompartmentIdInSubtree: common.Bool(true), SortBy: "DISPLAYNAME",
			})
			if got := code(t, err); got != tt.wantCode {
				t.Fatalf("code %q, want %q", got, tt.wantCode)
			}
			var got []string
			for _, r := range res.Items {
				got = append(got, *r.DisplayName)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("repositories %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("a subtree below another compartment is rejected", func(t *testing.T) {
		t.Parallel()
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
		below := tenancy.NewCompartment("below", "")
		_, err := newClients(t, tenancy.Admin()).artifacts.ListContainerImages(context.Background(), artifacts.ListContainerImagesRequest{
			CompartmentId: &below, CompartmentIdInSubtree: common.Bool(true),
		})
		if got := code(t, err); got != "InvalidParameter" {
			t.Errorf("code %q, want InvalidParameter", got)
		}
	})
	t.Run("without the right, a list is empty if the switch says so", func(t *testing.T) {
		t.Parallel()
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.ListDenied, s.EmptyPages = "empty", false })})
		tenancy.NewImage("web")
		res, err := newClients(t, tenancy.NewUser("u")).artifacts.ListContainerImages(context.Background(), artifacts.ListContainerImagesRequest{CompartmentId: &tenancy.ID})
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Items) != 0 {
			t.Errorf("listed %v", res.Items)
		}
	})
}

func TestStatements(t *testing.T) {
	t.Parallel()
	for statement, good := range map[string]bool{
		"Allow group a to manage repos in tenancy":                                            true,
		"allow group 'a b', c to use keys in compartment id ocid1.compartment.oc1..a":         true,
		"Allow any-user to use keys in tenancy where request.user.id=ocid1.cluster.oc1.iad.x": true,
		"Allow any-user to read repos in compartment a:b where all {request.principal.type = 'workload', request.principal.namespace = 'ns', request.principal.cluster_id = 'c'}": true,
		"Allow user u to {KEY_READ} in tenancy": true,
		"":                                      false,
		"Deny group a to manage repos in tenancy":                 false,
		"Allow service faas to read repos in tenancy":             true,
		"Allow service to read repos in tenancy":                  false,
		"Allow group a to own repos in tenancy":                   false,
		"Allow group a to read nothing in tenancy":                false,
		"Allow group a to read repos":                             false,
		"Allow group a to read repos in":                          false,
		"Allow group a to read repos in region x":                 false,
		"Allow group a to read repos in tenancy but not always":   false,
		"Allow group a to read repos in tenancy where":            false,
		"Allow group a to read repos in tenancy where a":          false,
		"Allow group a to read repos in tenancy where a > 'b'":    false,
		"Allow group a to read repos in tenancy where a = 'b":     false,
		"Allow group a to read repos in tenancy where all {a='b'": false,
		"Allow group a to {KEY_READ in tenancy":                   false,
	} {
		if err := ocitest.ValidateStatement(statement); (err == nil) != good {
			t.Errorf("%q: %v, want good %t", statement, err, good)
		}
	}
}

func FuzzStatements(f *testing.F) {
	f.Add("Allow any-user to read repos in compartment a:b where all {request.principal.type = 'workload', a != /b*/}")
	f.Add("Allow group 'a b', c to {KEY_READ, KEY_SIGN} in compartment id ocid1.compartment.oc1..a")
	f.Fuzz(func(_ *testing.T, statement string) {
		ocitest.ValidateStatement(statement) //nolint:errcheck // must not panic
	})
}

// replaceWords replaces placeholders in a statement.
func replaceWords(statement string, values map[string]string) string {
	for word, value := range values {
		statement = regexp.MustCompile(`\b`+word+`\b`).ReplaceAllLiteralString(statement, value)
	}
	return statement
}
