package ocitest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// federateAs signs in as an instance, as Oracle's SDK for Python does.
func federateAs(t *testing.T, base, tenancy string) bearer {
	t.Helper()
	session, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(der(t, metadata(t, base, "/identity/cert.pem")))
	fingerprint := strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
	var answer struct{ Token string }
	receive(t, exchange(t, base, tenancy, "fed-x509", fingerprint, "", session), &answer)
	return bearer{"ST$" + answer.Token, session}
}

// stage returns a resource's identity, which signs requests with the token of the
// resource's files.
func stage(t *testing.T, r *ocitest.Resource) bearer {
	t.Helper()
	token, err := os.ReadFile(r.Token)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(r.Key)
	if err != nil {
		t.Fatal(err)
	}
	return bearer{"ST$" + string(token), privateKey(t, string(text))}
}

// A resource has the rights of the dynamic groups whose rules match it. It has no
// user's rights, and no rights of a group with the same name.
func TestDynamicGroups(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	in := tenancy.NewCompartment("apps", "")
	instance, pipeline := tenancy.NewActor("instance", in), tenancy.NewActor("devopsbuildpipeline", in)
	as := map[string]bearer{
		"instance": federateAs(t, instance.NewInstance().MetadataURL, tenancy.ID),
		"pipeline": stage(t, pipeline.NewResource(time.Hour)),
	}
	const read = " to read repos in tenancy"
	for name, tt := range map[string]struct {
		rule, statement string
		may             string // which of the two may read
	}{
		"an instance, by its compartment":     {"All {instance.compartment.id = '" + in + "'}", "Allow dynamic-group g" + read, "instance"},
		"an instance, by its OCID":            {"instance.id = '" + instance.ID + "'", "Allow dynamic-group g" + read, "instance"},
		"a resource, by type and compartment": {"ALL {resource.type = 'devopsbuildpipeline', resource.compartment.id = '" + in + "'}", "Allow dynamic-group g" + read, "pipeline"},
		"one of several":                      {"Any {instance.id = '" + instance.ID + "', resource.id = '" + pipeline.ID + "'}", "Allow dynamic-group x, g" + read, "instance pipeline"},
		"another compartment":                 {"All {instance.compartment.id = '" + tenancy.ID + "'}", "Allow dynamic-group g" + read, ""},
		"another type":                        {"resource.type = 'devopsdeploypipeline'", "Allow dynamic-group g" + read, ""},
		"one condition of All is false":       {"All {instance.compartment.id = '" + in + "', instance.id = 'another'}", "Allow dynamic-group g" + read, ""},
		"a group of users":                    {"instance.id = '" + instance.ID + "'", "Allow group g" + read, ""},
		"another dynamic group":               {"instance.id = '" + instance.ID + "'", "Allow dynamic-group h" + read, ""},
		"any-user with a type":                {"resource.id = 'x'", "Allow any-user" + read + " where request.principal.type = 'devopsbuildpipeline'", "pipeline"},
	} {
		t.Run(name, func(t *testing.T) {
			tenancy.NewDynamicGroup("g", tt.rule)
			withdraw := tenancy.AllowOnly(tt.statement)
			defer withdraw()
			defer tenancy.RemoveDynamicGroups()
			for who, b := range as {
				status, _, why := send(t, signed(t, b, newRequest(t, "GET", strings.Replace(configuration, "configuration", "repositories", 1)+tenancy.ID, "")))
				want := map[bool]int{true: 200, false: 404}[strings.Contains(tt.may, who)]
				if empty := tenancy.Switches().ListDenied == "empty"; want == 404 && empty {
					status, _, why = send(t, signed(t, b, newRequest(t, "GET", configuration+tenancy.ID, "")))
				}
				if status != want {
					t.Errorf("%s: %d (%s), want %d", who, status, why, want)
				}
			}
		})
	}
}

func TestDynamicGroupAPI(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := newClients(t, tenancy.Admin())
	const api = "https://identity.us-ashburn-1.oci.oraclecloud.com/20160918/dynamicGroups"
	post := func(rule string) (int, string, string) {
		body := fmt.Sprintf(`{"compartmentId":%q,"name":"g","description":"d","matchingRule":%q}`, tenancy.ID, rule)
		return send(t, signed(t, c.config, newRequest(t, "POST", api, body)))
	}
	for rule, want := range map[string]string{
		"All {instance.id = 'x'": "400 InvalidParameter", "tag.a.b.value = 'x'": "400 InvalidParameter", "resource.type = /dev*/": "400 InvalidParameter",
	} {
		if status, code, _ := post(rule); fmt.Sprint(status, " ", code) != want {
			t.Errorf("%s: %d %s, want %s", rule, status, code, want)
		}
	}
	if status, code, why := post("All {resource.type = 'devopsbuildpipeline'}"); status != 200 {
		t.Errorf("%d %s (%s)", status, code, why)
	}
	if status, code, _ := post("All {resource.type = 'devopsbuildpipeline'}"); status != 409 {
		t.Errorf("twice: %d %s", status, code)
	}
	var list []struct{ ID, Name, MatchingRule string }
	receive(t, signed(t, c.config, newRequest(t, "GET", api+"?name=g&compartmentId="+url.QueryEscape(tenancy.ID), "")), &list)
	if tenancy.Switches().EmptyPages {
		return // the first page is empty
	}
	if len(list) != 1 || list[0].MatchingRule != "All {resource.type = 'devopsbuildpipeline'}" {
		t.Errorf("listed %v", list)
	}
}

// Faults also affect an instance's metadata service and a cluster's endpoint.
func TestFaultsWithoutTunnel(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	i := tenancy.NewActor("instance", "").NewInstance()
	get := func() (int, error) {
		req := newRequest(t, "GET", i.MetadataURL+"/instance/region", "")
		req.Header.Set("Authorization", "Bearer Oracle")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}
	tenancy.Fault(ocitest.Fault{Operation: "metadata.instance.*", Kind: ocitest.Status, Status: 503, Count: 1})
	if status, err := get(); status != 503 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
	reset := tenancy.Fault(ocitest.Fault{Operation: "metadata.*", Kind: ocitest.Reset})
	if _, err := get(); err == nil {
		t.Error("a broken connection returned an answer")
	}
	cloud.ClearFault(reset)
	if status, err := get(); status != 200 || err != nil {
		t.Errorf("after the faults: %d, %v", status, err)
	}
	if n := tenancy.Calls()["metadata.instance.region"]; n < 3 {
		t.Errorf("counted %d calls", n)
	}
}
