package vulnscan

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/vulnerabilityscanning"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// Problems returns the open problems of a result in a region, and the region of the
// scanned registry. The region comes from the result or its target, and is zero if
// neither names it.
func (c *Client) Problems(ctx context.Context, in image.Region, id string) ([]vulnreport.Problem, image.Region, error) {
	get := call(in, "GetContainerScanResult", http.MethodGet, "/containerScanResults/{containerScanResultId}")
	get.MaxAnswer = maxResult
	var got struct {
		ID       string  `json:"id"`
		Highest  string  `json:"highestProblemSeverity"`
		Count    *int    `json:"problemCount"`
		URL      *string `json:"registryUrl"`
		Target   *string `json:"containerScanTargetId"`
		Problems *[]struct {
			Name     string `json:"name"`
			Severity string `json:"severity"`
			State    string `json:"state"`
		} `json:"problems"`
	}
	if !isResult(id) {
		return nil, image.Region{}, fmt.Errorf("not the OCID of a result: %.120q", id)
	}
	if _, err := c.who.Do(ctx, get, vulnerabilityscanning.GetContainerScanResultRequest{ContainerScanResultId: common.String(id)}, &got); err != nil {
		return nil, image.Region{}, fmt.Errorf("reading the result of a scan: %w", err)
	}
	if got.ID != id || got.Problems == nil {
		return nil, image.Region{}, get.Malformed("asked for result %s, got %.120q with or without problems", id, got.ID)
	}
	var open []vulnreport.Problem
	var severities []string
	for _, p := range *got.Problems {
		severities = append(severities, p.Severity)
		if severity, counts := vulnreport.ParseSeverity(p.Severity); counts && vulnreport.Open(p.State) {
			open = append(open, vulnreport.Problem{ID: p.Name, Severity: severity})
		}
	}
	if err := whole(get, got.Count, got.Highest, severities); err != nil {
		return nil, image.Region{}, err
	}
	region, err := c.scanned(ctx, in, deref(got.URL), deref(got.Target))
	return open, region, err
}

// whole compares a result's own summary with the severities of the problems that it
// lists. A summary that says more means that the list is not whole.
func whole(get oci.Call, said *int, highest string, severities []string) error {
	worst, bad := vulnreport.Severity(""), false
	for _, s := range severities {
		if severity, counts := vulnreport.ParseSeverity(s); counts && (!bad || severity.AtLeast(worst)) {
			worst, bad = severity, true
		}
	}
	told, counts := vulnreport.ParseSeverity(highest)
	if said != nil && *said > len(severities) || counts && (!bad || !worst.AtLeast(told)) {
		return get.Malformed("a result with %d problems of at worst %.20q lists %d of at worst %.20q", value(said), highest, len(severities), worst)
	}
	return nil
}

// scanned returns the region of the registry that a result is about.
func (c *Client) scanned(ctx context.Context, in image.Region, url, target string) (image.Region, error) {
	if url == "" && target != "" {
		t, err := c.Target(ctx, in, target)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return image.Region{}, err
		}
		url = t.URL
	}
	return RegistryRegion(url), nil
}

// RegistryRegion returns the region of the registry at an address such as
// https://iad.ocir.io, or zero for another registry.
func RegistryRegion(url string) image.Region {
	host := strings.TrimSuffix(strings.TrimPrefix(url, "https://"), "/")
	ref, err := image.Parse(host + "/x/x:x")
	if err != nil || strings.Contains(host, "/") {
		return image.Region{}
	}
	return ref.Region()
}

// maxDetails bounds the bytes of a result that Findings reads.
const maxDetails = 64 << 20

// Finding is a problem that a scan found, as OCI describes it. Its texts are made
// fit for people to read.
type Finding struct {
	ID            string
	Severity      vulnreport.Severity // empty where it is of no consequence
	State         string              // OPEN, FIXED or NOT_APPLICABLE; empty if OCI does not say
	Description   string
	Reference     string // where to read about it
	FirstDetected time.Time
	Packages      []Package
}

// Package is where a problem is.
type Package struct {
	Name     string
	Version  string
	Type     string // such as DEB
	FixedIn  string // the version without the problem, if there is one
	Location string // the first
}

// Findings returns all findings of a result in a region, in OCI's order.
func (c *Client) Findings(ctx context.Context, in image.Region, id string) ([]Finding, error) {
	if !isResult(id) {
		return nil, fmt.Errorf("not the OCID of a result: %.120q", id)
	}
	get := call(in, "GetContainerScanResult", http.MethodGet, "/containerScanResults/{containerScanResultId}")
	get.MaxAnswer = maxDetails
	var got vulnerabilityscanning.ContainerScanResult
	if _, err := c.who.Do(ctx, get, vulnerabilityscanning.GetContainerScanResultRequest{ContainerScanResultId: common.String(id)}, &got); err != nil {
		return nil, fmt.Errorf("reading the result of a scan: %w", err)
	}
	if deref(got.Id) != id {
		return nil, get.Malformed("asked for result %s, got %.120q", id, deref(got.Id))
	}
	findings := make([]Finding, 0, len(got.Problems))
	severities := make([]string, 0, len(got.Problems))
	for _, p := range got.Problems {
		severities = append(severities, string(p.Severity))
		f := Finding{
			ID: oci.Text(p.Name), State: string(p.State), Description: oci.Text(p.Description),
			Reference: oci.Text(p.CveReference), FirstDetected: when(p.TimeFirstDetected),
		}
		f.Severity, _ = vulnreport.ParseSeverity(string(p.Severity))
		for _, v := range p.VulnerablePackages {
			pkg := Package{Name: oci.Text(v.Name), Version: oci.Text(v.Version), Type: string(v.Type), FixedIn: oci.Text(v.CveFixVersion)}
			if len(v.Locations) > 0 {
				pkg.Location = oci.Text(&v.Locations[0])
			}
			f.Packages = append(f.Packages, pkg)
		}
		findings = append(findings, f)
	}
	return findings, whole(get, got.ProblemCount, string(got.HighestProblemSeverity), severities)
}
