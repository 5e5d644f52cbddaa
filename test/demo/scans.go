package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// chapterScan has an image scanned, and reads the results.
func (s *story) chapterScan(ctx context.Context) error {
	s.chapter("15", "Known problems of an image")
	// Without --image-count, OCI decides how many images of a new target it scans.
	setup := []string{"scan", "setup", "--compartment", s.vault.CompartmentID, "--repository", "scan-test", "--image-count", "1"}
	r, err := s.kubectl(ctx, setup...)
	if err != nil {
		return err
	}
	s.expect("no policy allows the service", "exit code 3, missing", code(r)+", "+word(r.stdout, "missing"))
	s.say("  An administrator adds the two statements.")
	var statements []string
	for line := range strings.Lines(r.stdout) {
		if words := strings.Fields(line); len(words) > 2 && words[1] == "missing" {
			statements = append(statements, strings.Join(words[2:], " "))
		}
	}
	if len(statements) != 2 {
		return fmt.Errorf("no two statements in %s", r.stdout)
	}
	if err := s.cloud.AddPolicy(ctx, s.vault.CompartmentID, "scanning", statements...); err != nil {
		return err
	}
	if r, err = s.kubectl(ctx, setup...); err != nil {
		return err
	}
	s.expect("recipe and target exist, and the service scans", "exit code 0, made", code(r)+", "+word(r.stdout, "made"))
	if r, err = s.kubectl(ctx, setup...); err != nil {
		return err
	}
	s.expect("again: nothing to do", "exit code 0, absent", code(r)+", "+word(r.stdout, "made"))
	if r, err = s.kubectl(ctx, "scan", "results", scanTest+":latest", "--fail-on", "HIGH"); err != nil {
		return err
	}
	s.expect("the signed image has no problem", "exit code 0", code(r))

	s.say("  10 December 2021: a problem in a library is published.")
	image, err := s.pinned(ctx, scanTest, "latest")
	if err != nil {
		return err
	}
	err = s.cloud.Publish(ctx, ocitest.Problems{Image: image, Problems: []ocitest.Problem{
		{
			Name: "CVE-2021-44228", Severity: "CRITICAL", FirstDetected: time.Date(2021, 12, 10, 0, 0, 0, 0, time.UTC),
			Description: "Log4j runs code that a log message names",
			Packages:    []ocitest.Package{{Name: "log4j-core", Version: "2.14.1", Type: "JAVA", FixVersion: "2.17.1"}},
		},
		{Name: "CVE-2021-20231", Severity: "LOW", Packages: []ocitest.Package{{Name: "libgnutls30", Version: "3.6.7", Type: "DEB"}}},
	}})
	if err != nil {
		return err
	}
	if r, err = s.kubectl(ctx, "scan", "results", image, "--fail-on", "HIGH"); err != nil {
		return err
	}
	s.expect("the same image, scanned again", "exit code 3, CVE-2021-44228, 2.17.1", code(r)+", "+word(r.stdout, "CVE-2021-44228")+", "+word(r.stdout, "2.17.1"))
	unscanned, err := s.pinned(ctx, scanTest, "v1")
	if err != nil {
		return err
	}
	if r, err = s.kubectl(ctx, "scan", "results", unscanned, "--fail-on", "HIGH"); err != nil {
		return err
	}
	s.expect("an image without a scan", "exit code 3, not-scanned", code(r)+", "+word(r.stdout, "not-scanned"))
	return nil
}

// chapterScanned denies images with known problems.
func (s *story) chapterScanned(ctx context.Context) error {
	s.chapter("16", "An image with a known problem does not run, signed or not")
	image, err := s.pinned(ctx, scanTest, "latest")
	if err != nil {
		return err
	}
	unscanned, err := s.pinned(ctx, scanTest, "v1")
	if err != nil {
		return err
	}
	if err := s.allow(ctx, s.imageKey, s.releaseKey); err != nil {
		return err
	}
	for _, test := range []struct{ what, parameters, image, want string }{
		{"signed, with a problem", "{maxSeverity: HIGH}", image, "0/3; denied: problems"},
		{"with that problem ignored, and a less severe one", "{maxSeverity: HIGH, ignore: [CVE-2021-44228]}", image, "3/3"},
		{"signed, never scanned", "{maxSeverity: HIGH}", unscanned, "0/3; denied: not-scanned"},
		{"never scanned, with unknown: Allow", "{maxSeverity: HIGH, unknown: Allow}", unscanned, "3/3"},
	} {
		s.say("  %s", s.paint("36", "$ kubectl apply -f scanned.yaml    # OKEScannedImages, "+strings.Trim(test.parameters, "{}")))
		if err := s.requireScans(ctx, test.parameters); err != nil {
			return err
		}
		o, err := s.deployScanned(ctx, "app", test.image)
		if err != nil {
			return err
		}
		s.expect(test.what, test.want, o.summary())
	}
	return s.cluster.engine.RemoveConstraint(ctx, "OKEScannedImages", "scanned-images")
}

// requireScans adds the constraint about scans to the cluster.
func (s *story) requireScans(ctx context.Context, parameters string) error {
	return s.cluster.engine.AddConstraint(ctx, fmt.Appendf(nil, `
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKEScannedImages
metadata: {name: scanned-images}
spec:
  enforcementAction: deny
  match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}
  parameters: %s
`, parameters))
}

// deployScanned deploys until the provider has the scan results. The provider
// answers after 0.3 s with what it has, and fetches the rest in the background. The
// controller repeats its request.
func (s *story) deployScanned(ctx context.Context, name, image string) (outcome, error) {
	for {
		o, err := s.deploy(ctx, name, image, "")
		if err != nil || !strings.Contains(o.summary(), "no-answer") {
			return o, err
		}
		s.say("    The provider is still asking OCI. The controller tries again.")
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return outcome{}, ctx.Err()
		}
	}
}
