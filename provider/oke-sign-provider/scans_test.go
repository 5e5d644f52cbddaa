package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

func scanQuestion(image string) string {
	b, err := json.Marshal(map[string]string{"image": image})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// scans sends questions about scans, and returns a short text for each image's
// answer.
func (r *running) scans(images ...string) (map[string]string, string) {
	r.t.Helper()
	var keys []string
	for _, image := range images {
		keys = append(keys, scanQuestion(image))
	}
	answer, err := r.send("/v1/scans", keys...)
	if err != nil {
		r.t.Fatal(err)
	}
	return reports(answer), answer.Response.SystemError
}

func reports(answer *externaldata.ProviderResponse) map[string]string {
	got := make(map[string]string)
	for _, item := range answer.Response.Items {
		var q struct{ Image string }
		_ = json.Unmarshal([]byte(item.Key), &q) // the test misses a question that does not parse
		v, _ := item.Value.(map[string]any)
		got[q.Image] = fmt.Sprint(v["reason"])
		if v["known"] == true {
			got[q.Image] = fmt.Sprint(v["counts"])
		}
	}
	return got
}

func TestScans(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	tenancy.AllowScanning()
	tenancy.NewScanTarget("")
	bad, clean, older, untagged := tenancy.NewImage("app", "v1"), tenancy.NewImage("app", "v2"), tenancy.NewImage("app", "v3"), tenancy.NewImage("app")
	bad.Publish(ocitest.Problem{Name: "CVE-2021-44228", Severity: "CRITICAL"}, ocitest.Problem{Name: "CVE-2", Severity: "LOW"})
	tenancy.NewImage("app", "v3")
	r := start(t, tenancy.Admin(), "--scan-timeout", "15s")
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })

	got, missing := r.scans(bad.Ref(), clean.Ref(), older.Ref(), untagged.Ref(), "nginx", strings.Split(bad.Ref(), "@")[0]+":v1", strings.Replace(bad.Ref(), tenancy.Namespace, "nobody", 1))
	for image, want := range map[string]string{
		bad.Ref():                                "map[CRITICAL:1 HIGH:0 LOW:1 MEDIUM:0]",
		clean.Ref():                              "map[CRITICAL:0 HIGH:0 LOW:0 MEDIUM:0]",
		older.Ref():                              "no-tag",
		untagged.Ref():                           "no-tag",
		"nginx":                                  "not-oci-registry",
		strings.Split(bad.Ref(), "@")[0] + ":v1": "no-digest",
		strings.Replace(bad.Ref(), tenancy.Namespace, "nobody", 1): "not-covered",
	} {
		if got[image] != want {
			t.Errorf("%s: %s, want %s", image, got[image], want)
		}
	}
	if missing != "" {
		t.Errorf("systemError %q", missing)
	}
	until(t, "a line for each report", func() bool { return len(r.lines("scan")) >= 7 })
	if l := r.lines("scan")[0]; l["image"] == nil || l["duration"] == nil {
		t.Error(l)
	}
	_, metrics := r.get("/metrics")
	for _, want := range []string{
		`oke_sign_answers_total{endpoint="scans",reason="known"} 2`, `oke_sign_cache_entries{cache="scans"} 4`,
		`oke_sign_oci_requests_total{operation="GetContainerScanResult",outcome="ok",service="vulnerabilityscanning"} 2`,
		`oke_sign_request_duration_seconds_count{endpoint="scans",outcome="answered"} 1`, `oke_sign_answers_total{endpoint="signatures",reason="signed"} 0`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	before := tenancy.Calls()
	r.scans(bad.Ref(), clean.Ref())
	if after := tenancy.Calls(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("from the cache, but OCI was called: %v, %v", before, after)
	}
}

// TestHangingScans checks both endpoints while the scanning service hangs. Each
// question about scans gets its answer in time: the result is unknown. Signatures
// are checked as usual.
func TestHangingScans(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	tenancy.AllowScanning()
	tenancy.NewScanTarget("")
	key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
	img := tenancy.NewImage("app", "v1")
	r := start(t, tenancy.Admin(), "--scan-timeout", "50ms")
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	hang := tenancy.Fault(ocitest.Fault{Kind: ocitest.Hang, Operation: "vulnerabilityscanning.*"})
	many := []string{img.Ref()}
	for n := range 100 {
		many = append(many, strings.Split(img.Ref(), "@")[0]+fmt.Sprintf("@sha256:%064d", n))
	}
	for _, image := range many[1:] { // they do not exist, and each costs a call
		if got, _ := r.scans(img.Ref(), image); got[img.Ref()] != "" {
			t.Fatalf("an answer without a source: %v", got)
		}
	}
	_, missing := r.scans(img.Ref())
	if !strings.Contains(missing, img.Ref()) || !strings.Contains(missing, "no answer from OCI within 50ms") {
		t.Errorf("systemError %q", missing)
	}
	q := question(img.Ref(), key.ID)
	if got := values(r.ask(q)); got[q] != "false unsigned " {
		t.Errorf("a signature's denial while scans hang: %v", got)
	}
	// Both endpoints use the registry, and scans may hang there too.
	lookups := tenancy.Fault(ocitest.Fault{Kind: ocitest.Hang, Operation: "artifacts.LookupContainerImageByUri"})
	signed := tenancy.NewImage("app", "v2")
	tenancy.Add(signed.Sign(key, "SHA_256_RSA_PKCS_PSS"))
	for n := range 40 {
		r.scans(strings.Split(img.Ref(), "@")[0] + fmt.Sprintf("@sha256:1%063d", n))
	}
	q = question(signed.Ref(), key.ID)
	if got := values(r.ask(q)); got[q] != "true signed " {
		t.Errorf("a signature while scans hang in the registry: %v", got)
	}
	cloud.ClearFault(lookups)
	cloud.ClearFault(hang)
	until(t, "a scan, once the service is back", func() bool {
		got, _ := r.scans(img.Ref())
		return strings.HasPrefix(got[img.Ref()], "map[")
	})
}
