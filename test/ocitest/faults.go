package ocitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kinds of faults.
const (
	// Latency only waits for Delay. The other kinds wait for Delay too.
	Latency = "latency"
	// Status answers with Status, Code, Message and RetryAfter.
	Status = "status"
	// Reset breaks the connection before the answer.
	Reset = "reset"
	// Truncate sends half of the true answer and closes the connection.
	Truncate = "truncate"
	// Endless starts the true answer and never ends it.
	Endless = "endless"
	// Trickle sends the true answer, one byte per Delay.
	Trickle = "trickle"
	// Body answers with Status (200 if zero) and any Body.
	Body = "body"
	// Set replaces top-level fields of the true answer with those of Set. In a list
	// it does so in every item.
	Set = "set"
	// Stale answers reads from the state at the time when the fault was set.
	Stale = "stale"
	// Hang accepts the request and never answers.
	Hang = "hang"
	// Unreachable rejects connections to Host and breaks open ones.
	Unreachable = "unreachable"
)

// Fault makes matching requests fail. Matching fields are patterns for path.Match.
// Empty fields match everything.
type Fault struct {
	ID int64 `json:"id,omitempty"` // given by the cloud

	Operation string `json:"operation,omitempty"` // such as "artifacts.*" or "keymanagement.GetKeyVersion"
	Host      string `json:"host,omitempty"`
	Tenancy   string `json:"tenancy,omitempty"` // OCID of the caller's
	User      string `json:"user,omitempty"`    // OCID of the caller

	Kind        string  `json:"kind"`
	Skip        int     `json:"skip,omitempty"`        // let so many matching requests pass first
	Count       int     `json:"count,omitempty"`       // then hit so many; 0 is all
	Probability float64 `json:"probability,omitempty"` // of a hit; 0 is always

	Delay      Duration          `json:"delay,omitempty"`
	Status     int               `json:"status,omitempty"`
	Code       string            `json:"code,omitempty"`
	Message    string            `json:"message,omitempty"`
	RetryAfter string            `json:"retryAfter,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Body       string            `json:"body,omitempty"`
	Set        map[string]any    `json:"set,omitempty"`
}

// Duration is a time.Duration, "250ms" in JSON.
type Duration time.Duration

// MarshalText writes d as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("reading a duration: %w", err)
	}
	if v < 0 {
		return fmt.Errorf("reading a duration: %s is negative", v)
	}
	*d = Duration(v)
	return nil
}

// activeFault is a fault in force.
type activeFault struct {
	Fault
	seen     int
	hits     int
	snapshot *world // set for Stale
}

func (f Fault) validate() error {
	switch f.Kind {
	case Latency, Reset, Truncate, Endless, Trickle, Body, Stale, Hang:
	case Set:
		if len(f.Set) == 0 {
			return fmt.Errorf("fault set: nothing to set")
		}
	case Status:
		if f.Status < 200 || f.Status > 599 {
			return fmt.Errorf("fault status: %d is no status", f.Status)
		}
	case Unreachable:
		if f.Host == "" {
			return fmt.Errorf("fault unreachable: it needs a host, such as artifacts.us-ashburn-1.* or *")
		}
		if f.Operation != "" || f.Tenancy != "" || f.User != "" {
			return fmt.Errorf("fault unreachable: it is about hosts only")
		}
	default:
		return fmt.Errorf("fault %q is of no kind that is known", f.Kind)
	}
	for _, pattern := range []string{f.Operation, f.Host, f.Tenancy, f.User} {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("fault %s: pattern %q: %w", f.Kind, pattern, err)
		}
	}
	if f.Probability < 0 || f.Probability > 1 || f.Skip < 0 || f.Count < 0 {
		return fmt.Errorf("fault %s: skip, count and probability are not negative, probability is at most 1", f.Kind)
	}
	return nil
}

// SetFault makes later requests fail, and returns the fault's number.
func (c *Cloud) SetFault(f Fault) (int64, error) {
	if err := f.validate(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	active := &activeFault{Fault: f}
	if f.Kind == Stale {
		var err error
		if active.snapshot, err = c.world.clone(); err != nil {
			return 0, err
		}
	}
	c.last++
	active.ID = c.last
	c.faults = append(c.faults, active)
	return active.ID, nil
}

// ClearFault ends one fault.
func (c *Cloud) ClearFault(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = slices.DeleteFunc(c.faults, func(f *activeFault) bool { return f.ID == id })
}

// ClearFaults ends all faults.
func (c *Cloud) ClearFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// Faults returns the faults in force.
func (c *Cloud) Faults() []Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]Fault, len(c.faults))
	for i, f := range c.faults {
		out[i] = f.Fault
	}
	return out
}

func glob(pattern, value string) bool {
	if pattern == "" {
		return true
	}
	ok, _ := path.Match(pattern, value) // SetFault has checked the pattern
	return ok
}

// hit counts a matching request and decides whether it fails.
func (f *activeFault) hit() bool {
	f.seen++
	if f.seen <= f.Skip || f.Count > 0 && f.hits >= f.Count {
		return false
	}
	if f.Probability > 0 && rand.Float64() >= f.Probability {
		return false
	}
	f.hits++
	return true
}

// fault returns the oldest fault that hits a request, or nil.
func (c *Cloud) fault(r Request) *activeFault {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.faults {
		if f.Kind != Unreachable && glob(f.Operation, r.Operation) && glob(f.Host, r.Host) &&
			glob(f.Tenancy, r.Tenancy) && glob(f.User, r.User) && f.hit() {
			return f
		}
	}
	return nil
}

func (c *Cloud) unreachable(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.faults {
		if f.Kind == Unreachable && glob(f.Host, host) && f.hit() {
			return true
		}
	}
	return false
}

// sleep waits until the time is over, or the client has left, or the cloud closes.
func (c *Cloud) sleep(r *http.Request, d Duration) bool {
	if d == 0 {
		return true
	}
	timer := time.NewTimer(time.Duration(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-c.closing.Done():
	}
	return false
}

// before does the part of a fault that comes before the answer. It returns true if
// that completes the request and its connection.
func (f *activeFault) before(c *Cloud, r *http.Request, t breakable) bool {
	if f == nil {
		return false
	}
	if f.Kind != Trickle && !c.sleep(r, f.Delay) {
		t.reset()
		return true
	}
	switch f.Kind {
	case Hang:
		select {
		case <-r.Context().Done():
		case <-c.closing.Done():
		}
		t.reset()
		return true
	case Reset:
		t.reset()
		return true
	}
	return false
}

// answers reports whether the fault replaces the answer.
func (f *activeFault) answers() bool { return f != nil && (f.Kind == Status || f.Kind == Body) }

func (f *activeFault) answer(a answer) answer {
	a.status = f.Status
	if f.Kind == Body {
		if a.status == 0 {
			a.status = http.StatusOK
		}
		a.body = []byte(f.Body)
	} else {
		code, message := f.Code, f.Message
		if code == "" {
			code = defaultCode(f.Status)
		}
		if message == "" {
			message = "set by a fault of the emulator"
		}
		a.body, _ = json.Marshal(map[string]string{"code": code, "message": message}) // two strings always encode
	}
	a.header.Set("Content-Type", "application/json")
	if f.RetryAfter != "" {
		a.header.Set("Retry-After", f.RetryAfter)
	}
	for name, value := range f.Headers {
		a.header.Set(name, value)
	}
	return a
}

func defaultCode(status int) string {
	switch status {
	case 401:
		return "NotAuthenticated"
	case 403:
		return "NotAuthorized"
	case 404:
		return "NotAuthorizedOrNotFound"
	case 409:
		return "IncorrectState"
	case 429:
		return "TooManyRequests"
	case 500:
		return "InternalServerError"
	case 503:
		return "ServiceUnavailable"
	}
	return strings.ReplaceAll(http.StatusText(status), " ", "")
}

// change applies Set to an answer.
func (f *activeFault) change(a answer) answer {
	var body map[string]any
	if f.Kind != Set || a.status >= 300 || json.Unmarshal(a.body, &body) != nil {
		return a
	}
	for name, value := range f.Set {
		body[name] = value
	}
	if items, ok := body["items"].([]any); ok {
		setAll(items, f.Set)
		for name := range f.Set {
			delete(body, name)
		}
	}
	if b, err := json.Marshal(body); err == nil {
		a.body = b
	}
	return a
}

func setAll(items []any, set map[string]any) {
	for _, item := range items {
		if fields, ok := item.(map[string]any); ok {
			for name, value := range set {
				fields[name] = value
			}
		}
	}
}

// deliver sends the part of an answer that the fault lets through.
func (c *Cloud) deliver(w http.ResponseWriter, r *http.Request, t breakable, a answer, f *activeFault) {
	if f == nil {
		c.write(w, a)
		return
	}
	a = f.change(a)
	for name, values := range a.header {
		w.Header()[name] = values
	}
	switch f.Kind {
	case Truncate:
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
		w.WriteHeader(a.status)
		w.Write(a.body[:len(a.body)/2])       //nolint:errcheck // broken off anyway
		http.NewResponseController(w).Flush() //nolint:errcheck // broken off anyway
		t.reset()
	case Endless:
		w.WriteHeader(a.status)
		io.Copy(w, endless(c, r, a.body)) //nolint:errcheck // ends when the client closes
		t.reset()
	case Trickle:
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
		w.WriteHeader(a.status)
		for i := range a.body {
			if !c.sleep(r, f.Delay) {
				t.reset()
				return
			}
			w.Write(a.body[i : i+1])              //nolint:errcheck // the request ends when the client leaves
			http.NewResponseController(w).Flush() //nolint:errcheck // as above
		}
	default:
		c.write(w, a)
	}
}

// endless returns JSON that starts as the true answer and continues with white
// space. A decoder that waits for the end waits forever.
func endless(c *Cloud, r *http.Request, body []byte) io.Reader {
	begin, _ := bytes.CutSuffix(body, []byte("}"))
	return io.MultiReader(bytes.NewReader(begin), readerFunc(func(p []byte) (int, error) {
		if r.Context().Err() != nil || c.closing.Err() != nil {
			return 0, io.EOF
		}
		for i := range p {
			p[i] = ' '
		}
		return len(p), nil
	}))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
