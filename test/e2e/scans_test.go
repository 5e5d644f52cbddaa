package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// scanned creates repositories of the space, whose images are scanned from now on, and
// returns the OCID of their scan target.
func (s space) scanned(t *testing.T, repositories ...string) string {
	t.Helper()
	const service = "allow service vulnerability-scanning-service to read "
	if err := cloud.AddPolicy(t.Context(), vault.CompartmentID, s.name, service+"repos in compartment containers", service+"compartments in compartment containers"); err != nil {
		t.Fatal(err)
	}
	args := []string{"scan", "setup", "--compartment", vault.CompartmentID, "--recipe", s.name, "--target", s.name, "-o", "json"}
	for _, name := range repositories {
		args = append(args, "--repository", s.name+"/"+name)
	}
	var steps []struct{ Step, ID string }
	r := okeSign(t, args...).succeeds(t)
	if err := json.Unmarshal([]byte(r.stdout), &steps); err != nil {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	for _, step := range steps {
		if step.Step == "target" {
			return step.ID
		}
	}
	t.Fatalf("no target: %s", r.stdout)
	return ""
}

// found sets the scan result of an image.
func found(t *testing.T, image string, problems ...ocitest.Problem) {
	t.Helper()
	if err := cloud.Publish(t.Context(), ocitest.Problems{Image: image, Problems: problems}); err != nil {
		t.Fatal(err)
	}
}

// ran creates a Pod again and again until the provider knows the image's scan. The
// provider answers within a third of a second, and loads the rest in the background.
func (s space) ran(t *testing.T, name, image string) (r result) {
	t.Helper()
	eventually(t, soon, "scans of "+image+" are known", func() error {
		r = s.kubectl(t, "run", name, "--image="+image)
		if strings.Contains(r.stderr, ": no-answer: ") {
			return r.err
		}
		return nil
	})
	return r
}

// Scan results decide what runs. A scan counts only for the scanned image, not for
// another push under its tag.
func TestScannedImages(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	target := s.scanned(t, "bad", "clean")
	bad, clean, unscanned := s.push(t, "bad"), s.push(t, "clean"), s.push(t, "unscanned")
	found(t, bad, ocitest.Problem{Name: "CVE-2021-3711", Severity: "HIGH"}, ocitest.Problem{Name: "CVE-2021-44228", Severity: "CRITICAL"},
		ocitest.Problem{Name: "CVE-2020-1", Severity: "LOW"}, ocitest.Problem{Name: "CVE-2020-2", Severity: "CRITICAL", State: "FIXED"})
	found(t, clean, ocitest.Problem{Name: "CVE-2020-1", Severity: "LOW"})
	s.enforce(t, constraint{kind: policies.ScannedImages, on: pods, parameters: "{maxSeverity: HIGH}"})

	problems := "containers/bad: problems: 2 of severity HIGH or worse; not ignored: CVE-2021-44228, CVE-2021-3711: " + bad
	s.ran(t, "bad", bad).fails(t, denies, problems)
	s.ran(t, "clean", clean).succeeds(t)
	s.running(t, "clean")
	s.ran(t, "unscanned", unscanned).fails(t, denies, "containers/unscanned: not-scanned: no scan of tag v1 since it was pushed ")
	s.ran(t, "tag", byTag(clean)).fails(t, denies, "containers/tag: no-digest: ")
	s.ran(t, "other", dockerHubDigest).fails(t, denies, "containers/other: not-oci-registry: ")
	s.applyAll(t, workload("Pod", "glass", bad, breakGlass("true"))).succeeds(t)

	okeSign(t, "explain", bad, "-n", s.name).fails(t, ": denied", "1 CRITICAL, 1 HIGH, 1 LOW", "kubectl oke-sign scan results "+bad)
	okeSign(t, "status", "-n", s.name).succeeds(t).says(t, "1 LOW", "break-glass", "2 images of OCI Registry, by the worst problem that scans found: 1 CRITICAL, 1 LOW")
	okeSign(t, "policy", "get").says(t, "denied with problems of severity HIGH or worse, or without a scan younger than 720h: OKEScannedImages/"+s.name+"-deny")

	// Later pushes are not scanned.
	okeSign(t, "scan", "target", "delete", target).succeeds(t)
	next := s.push(t, "clean")
	if next == clean || byTag(next) != byTag(clean) {
		t.Fatalf("%s is not a push under the tag of %s", next, clean)
	}
	s.ran(t, "next", next).fails(t, denies, "containers/next: older-push: the last scan of tag v1 began at ", "before the tag was put on this image ")
	okeSign(t, "scan", "results", "pods", "-l", "run=clean", "-n", s.name, "--fail-on", "HIGH").fails(t, "not known: no tag points to it")

	s.enforce(t, constraint{kind: policies.ScannedImages, on: pods, parameters: "{maxSeverity: HIGH, unknown: Allow}"})
	s.ran(t, "next", next).succeeds(t)
	s.ran(t, "unscanned", unscanned).succeeds(t)
	s.ran(t, "bad", bad).fails(t, denies, problems)
	s.enforce(t, constraint{kind: policies.ScannedImages, on: pods, parameters: "{maxSeverity: HIGH, ignore: [CVE-2021-44228, CVE-2021-3711]}"})
	s.ran(t, "bad", bad).succeeds(t)
}

// While the scanning service hangs, signatures are still checked. An unsigned image is
// denied for this reason, and in time.
func TestScansHang(t *testing.T) {
	disturbs(t)
	s := newSpace(t)
	s.scanned(t, "good")
	good, unsigned := s.signed(t, "good", imageKey), s.push(t, "unsigned")
	s.enforce(t,
		constraint{kind: policies.SignedImages, on: pods, parameters: signedBy("", imageKey)},
		constraint{kind: policies.ScannedImages, on: pods},
	)
	fault(t, ocitest.Fault{Kind: ocitest.Hang, Operation: "vulnerabilityscanning.*"})
	const unknown = ": no-answer: could not find out what scans say, from provider oke-sign-scans: "
	for _, name := range []string{"first", "again", "once-more"} {
		began := time.Now()
		r := s.kubectl(t, "run", name, "--image="+unsigned)
		took := time.Since(began)
		r.fails(t, denies, "containers/"+name+": unsigned: ", "containers/"+name+unknown)
		// Scans take 0.3 s of this; the rest is for kubectl on a busy machine.
		if took > 3*time.Second {
			t.Errorf("refused after %s", took)
		}
	}
	if r := s.kubectl(t, "run", "pod", "--image="+good).fails(t, denies, "containers/pod"+unknown); strings.Contains(r.stderr, "signed, from provider") {
		t.Errorf("no verdict about a signature: %s", r.stderr)
	}
	clearFaults(t)
	s.ran(t, "pod", good).succeeds(t)
}
