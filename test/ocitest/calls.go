package ocitest

import (
	"maps"
	"slices"
)

// maxRecent bounds the list of requests.
const maxRecent = 2000

// Request is a request that reached the cloud: its target, its caller, and its
// outcome.
type Request struct {
	Host      string `json:"host"`
	Method    string `json:"method"`
	Target    string `json:"target"` // as it came
	Operation string `json:"operation"`
	Tenancy   string `json:"tenancy,omitempty"`
	User      string `json:"user,omitempty"`
	Via       string `json:"via,omitempty"`    // OCID of who acts for the user, by a delegation token
	Status    int    `json:"status,omitempty"` // 0: none was sent
	Fault     string `json:"fault,omitempty"`

	Took Duration `json:"took,omitzero"` // from when all of it was there to when its answer was
}

func (c *Cloud) note(r Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tenancy := range []string{"", r.Tenancy} {
		if c.calls[tenancy] == nil {
			c.calls[tenancy] = map[string]int{}
		}
	}
	c.calls[""][r.Operation]++
	if r.Tenancy != "" {
		c.calls[r.Tenancy][r.Operation]++
	}
	if len(c.recent) >= maxRecent {
		c.recent = slices.Delete(c.recent, 0, maxRecent/2)
	}
	c.recent = append(c.recent, r)
	c.cfg.Log.Debug("request", "host", r.Host, "method", r.Method, "target", r.Target, "operation", r.Operation, "status", r.Status, "fault", r.Fault)
}

// Calls counts requests by operation, such as "artifacts.GetContainerImage".
// Rejected requests count too.
func (c *Cloud) Calls() map[string]int { return c.callsOf("") }

func (c *Cloud) callsOf(tenancy string) map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[tenancy] == nil {
		return map[string]int{}
	}
	return maps.Clone(c.calls[tenancy])
}

// ResetCalls clears the counts and the list of requests.
func (c *Cloud) ResetCalls() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = map[string]map[string]int{}
	c.recent = nil
}

// Requests returns the last requests that reached the cloud, oldest first.
func (c *Cloud) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.recent)
}
