package vulnscan

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/vulnerabilityscanning"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// maxDetails is how many bytes a result may have that somebody wants to read.
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

// Findings returns all that a result of the region found, in OCI's order.
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
			ID: ociauth.Text(p.Name), State: string(p.State), Description: ociauth.Text(p.Description),
			Reference: ociauth.Text(p.CveReference), FirstDetected: when(p.TimeFirstDetected),
		}
		f.Severity, _ = vulnreport.ParseSeverity(string(p.Severity))
		for _, v := range p.VulnerablePackages {
			pkg := Package{Name: ociauth.Text(v.Name), Version: ociauth.Text(v.Version), Type: string(v.Type), FixedIn: ociauth.Text(v.CveFixVersion)}
			if len(v.Locations) > 0 {
				pkg.Location = ociauth.Text(&v.Locations[0])
			}
			f.Packages = append(f.Packages, pkg)
		}
		findings = append(findings, f)
	}
	return findings, whole(get, got.ProblemCount, string(got.HighestProblemSeverity), severities)
}
