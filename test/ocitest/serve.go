package ocitest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

// maxBody bounds a request to an API. OCI Registry has another bound.
const maxBody = 1 << 20

// route is one operation of one service.
type route struct {
	service string // the service of the host
	method  string
	pattern []string // segments; one in braces is a parameter
	op      string
	do      func(*call) (any, error)
	status  int  // the status of a success; 200 if zero
	creates bool // whether opc-retry-token has an effect
}

// routes returns all emulated operations, in the order of their files.
func routes() []route {
	var all []route
	for _, part := range [][]route{artifactsRoutes(), imageRoutes(), repositoryRoutes(), vaultRoutes(), keyRoutes(), cryptoRoutes(), identityRoutes(), objectStorageRoutes(), federationRoutes(), tokenRoutes(), scanRoutes(), dynamicGroupRoutes(), domainRoutes(), resourceRoutes(), authTokenRoutes()} {
		all = append(all, part...)
	}
	return append(all, clusterRoutes()...)
}

func to(service, method, pattern, op string, do func(*call) (any, error)) route {
	return route{service: service, method: method, pattern: strings.Split(strings.TrimPrefix(pattern, "/"), "/"), op: op, do: do}
}

func (r route) creating() route       { r.creates = true; return r }
func (r route) with(status int) route { r.status = status; return r }

func (r route) match(segments []string) (map[string]string, bool) {
	if len(segments) != len(r.pattern) {
		return nil, false
	}
	params := map[string]string{}
	for i, p := range r.pattern {
		if name, ok := strings.CutPrefix(p, "{"); ok {
			if segments[i] == "" {
				return nil, false
			}
			params[strings.TrimSuffix(name, "}")] = segments[i]
		} else if p != segments[i] {
			return nil, false
		}
	}
	return params, true
}

// segments splits a path without decoding it first. A switch says whether ".."
// climbs. If it does, an escaped slash separates segments too. That is the worse
// case for a client that puts a stranger's text into its URL.
func segments(u *url.URL, sw Switches) []string {
	if sw.DotDot == "normalised" {
		return strings.Split(strings.TrimPrefix(path.Clean("/"+u.Path), "/"), "/")
	}
	parts := strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	for i, p := range parts {
		if plain, err := url.PathUnescape(p); err == nil {
			parts[i] = plain
		}
	}
	return parts
}

// yamlFile is an answer in YAML.
type yamlFile string

// answer is a response before faults change it.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// serveOCI serves every host of OCI.
func (c *Cloud) serveOCI(w http.ResponseWriter, r *http.Request) {
	t := tunnelOf(r)
	if t == nil {
		http.Error(w, "no tunnel", http.StatusInternalServerError)
		return
	}
	if host := strings.TrimSuffix(strings.ToLower(r.Host), ":443"); host != t.host {
		c.write(w, c.refusal(r, &failure{status: 421, code: "MisdirectedRequest", message: "The request is for another host.", why: "this connection is to " + t.host}))
		return
	}
	if c.unreachable(t.host) {
		t.reset()
		return
	}
	if t.end.service == "ocir" && strings.HasPrefix(r.URL.Path, "/v2") {
		c.serveRegistry(w, r, t) //nolint:contextcheck // the request carries it
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		c.write(w, c.refusal(r, &failure{status: 413, code: "PayloadTooLarge", message: "The request is too large.", why: err.Error()}))
		return
	}
	c.serveCall(w, r, t, body)
}

func (c *Cloud) serveCall(w http.ResponseWriter, r *http.Request, t *tunnel, body []byte) {
	began := time.Now()
	c.mu.Lock()
	sw := c.cfg.Switches
	if v := c.world.vaultByExtension(t.end.vault); v != nil {
		sw = c.switches(c.world, v.Compartment)
	}
	c.mu.Unlock()

	if t.end.tenancy != "" {
		c.mu.Lock()
		sw = c.switches(c.world, t.end.tenancy)
		c.mu.Unlock()
	}
	who, authErr := c.authenticate(r, body)
	if who != nil && t.end.vault == "" {
		c.mu.Lock()
		sw = c.switches(c.world, who.Tenancy)
		c.mu.Unlock()
	}
	rt, params, err := c.find(t.end.service, r, sw)
	entry := Request{Host: t.host, Method: r.Method, Target: r.RequestURI, Operation: rt.op, Tenancy: t.end.tenancy}
	if who != nil {
		entry.Tenancy, entry.User, entry.Via = who.Tenancy, who.ID, who.via
	}
	f := c.fault(entry)
	if f.before(c, r, t) {
		entry.Fault = f.Kind
		c.note(entry)
		return
	}
	var a answer
	switch {
	case f.answers():
		a = f.answer(c.respondTo(r))
	case err != nil:
		a = c.refusal(r, err)
	case authErr != nil && !rt.anonymous(r):
		a = c.refusal(r, authErr)
	default:
		a = c.perform(r, rt, &call{
			sw: sw, region: t.end.region, host: t.host, op: rt.op, method: r.Method, path: params, query: r.URL.Query(),
			in: r.Header, body: body, who: who, cloud: c, status: rt.status, out: http.Header{},
		}, t, f)
	}
	if f != nil {
		entry.Fault = f.Kind
	}
	entry.Status, entry.Took = a.status, Duration(time.Since(began))
	c.note(entry)
	c.deliver(w, r, t, a, f)
}

// anonymous reports whether an operation accepts callers without a request
// signature: the token endpoints of OCI Registry, of identity domains and of GitHub.
func (r route) anonymous(req *http.Request) bool {
	if r.service == "domain" || r.service == "github" {
		return true
	}
	return r.service == "ocir" && !strings.HasPrefix(req.Header.Get("Authorization"), "Signature ")
}

// find returns the route of a request, by the service of its host and by its path.
func (c *Cloud) find(service string, r *http.Request, sw Switches) (route, map[string]string, error) {
	parts := segments(r.URL, sw)
	allowed := false
	for _, rt := range c.routes {
		if rt.service != service {
			continue
		}
		params, ok := rt.match(parts)
		if !ok {
			continue
		}
		if rt.method == r.Method || rt.method == http.MethodGet && r.Method == http.MethodHead {
			return rt, params, nil
		}
		allowed = true
	}
	unknown := route{service: service, op: service + ".Unknown"}
	if allowed {
		return unknown, nil, &failure{status: 405, code: "MethodNotAllowed", message: "The method is not allowed for this resource.", why: ""}
	}
	return unknown, nil, &failure{status: 404, code: "NotFound", message: "The requested URL was not found.", why: "the emulator plays no " + r.Method + " " + r.URL.Path + " on " + service}
}

// perform runs one operation under the lock, after the checks that all operations
// share.
func (c *Cloud) perform(r *http.Request, rt route, cl *call, t *tunnel, f *activeFault) answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.world.scan()
	cl.world = c.world
	if f != nil && f.snapshot != nil && r.Method != http.MethodDelete && r.Method != http.MethodPut && !rt.creates {
		cl.world = f.snapshot
	}
	if cl.who != nil && !rt.anonymous(r) && !cl.subscribed() {
		return c.refusal(r, unauthenticated("the tenancy is not subscribed to %s", cl.region.ID()))
	}
	if t.end.vault != "" {
		if cl.vault = cl.vaultByExtension(t.end.vault); cl.vault == nil {
			return c.refusal(r, notFound("the vault is gone"))
		}
		if t.end.service == "management" && r.Method == http.MethodGet && c.throttled(cl.vault) {
			return c.refusal(r, &failure{status: 429, code: "TooManyRequests", message: "Too many requests for the tenancy.", why: "reads of vaults are limited"})
		}
	}
	token := r.Header.Get("Opc-Retry-Token")
	if !rt.creates || token == "" {
		return c.run(r, rt, cl)
	}
	return c.remember(token, cl, func() answer { return c.run(r, rt, cl) })
}

func (c *Cloud) run(r *http.Request, rt route, cl *call) answer {
	out, err := rt.do(cl)
	if err != nil {
		return c.refusal(r, err)
	}
	a := c.respondTo(r)
	for name, values := range cl.out {
		a.header[name] = values
	}
	a.status = http.StatusOK
	if cl.status != 0 {
		a.status = cl.status
	}
	if out == nil {
		if a.status == http.StatusOK {
			a.status = http.StatusNoContent
		}
		return a
	}
	if file, ok := out.(yamlFile); ok {
		a.body = []byte(file)
		a.header.Set("Content-Type", "application/x-yaml")
		return a
	}
	a.body, err = json.Marshal(out)
	if err != nil {
		return c.refusal(r, fmt.Errorf("encoding an answer: %w", err))
	}
	a.header.Set("Content-Type", "application/json")
	return a
}

// subscribed reports whether the caller's tenancy uses the region of the request.
func (c *call) subscribed() bool {
	t := c.Tenancies[c.who.Tenancy]
	if t == nil || t.realm() != c.region.Realm() {
		return false
	}
	for _, id := range t.Regions {
		if id == c.region.ID() {
			return true
		}
	}
	return false
}

// remembered is the answer to a request with a retry token.
type remembered struct {
	body   string
	answer answer
	until  time.Time
}

// remember repeats the answer to a retry token for a day. A creation that is sent
// twice therefore happens once. Cloud.mu is held.
func (c *Cloud) remember(token string, cl *call, do func() answer) answer {
	sum := sha256.Sum256(cl.body)
	who := ""
	if cl.who != nil {
		who = cl.who.ID
	}
	id, body := strings.Join([]string{who, cl.op, token}, " "), hex.EncodeToString(sum[:])
	if old, ok := c.tokens[id]; ok && c.cfg.Now().Before(old.until) {
		if old.body != body {
			return c.refusalTo(cl.in, conflict("InvalidatedRetryToken", "The retry token was used with another request."))
		}
		return old.answer
	}
	a := do()
	if a.status < 300 {
		c.tokens[id] = remembered{body: body, answer: a, until: c.cfg.Now().Add(24 * time.Hour)}
	}
	return a
}

// respondTo starts an answer with the headers that every answer has.
func (c *Cloud) respondTo(r *http.Request) answer { return c.begin(r.Header) }

func (c *Cloud) begin(in http.Header) answer {
	h := http.Header{}
	h.Set("Opc-Request-Id", requestID(in.Get("Opc-Request-Id")))
	h.Set(aboutHeader, about)
	return answer{header: h}
}

func (c *Cloud) refusal(r *http.Request, err error) answer { return c.refusalTo(r.Header, err) }

func (c *Cloud) refusalTo(in http.Header, err error) answer {
	a := c.begin(in)
	var f *failure
	if !errors.As(err, &f) {
		c.cfg.Log.Error("an operation broke", "error", err)
		f = &failure{status: 500, code: "InternalServerError", message: "An internal server error occurred.", why: err.Error()}
	}
	a.status = f.status
	said := map[string]string{"code": f.code, "message": f.message}
	if f.oauth {
		said = map[string]string{"error": f.code, "error_description": f.message}
	}
	a.body, _ = json.Marshal(said) // strings always encode
	a.header.Set("Content-Type", "application/json")
	if f.why != "" {
		a.header.Set("X-Oci-Emulator-Why", strings.Map(printable, f.why))
	}
	return a
}

func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return ' '
	}
	return r
}

// write sends an answer unchanged.
func (c *Cloud) write(w http.ResponseWriter, a answer) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	if a.status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	io.Copy(w, bytes.NewReader(a.body)) //nolint:errcheck // a client that went away
}

// meter counts the reads of one second.
type meter struct {
	second int64
	reads  int
}

// throttled counts a read of a vault, and reports whether it exceeds the limit. All
// vaults of a tenancy share one limit. Cloud.mu is held.
func (c *Cloud) throttled(v *vault) bool {
	if c.cfg.VaultReads == 0 {
		return false
	}
	id := c.world.tenancyOf(v.Compartment).ID
	m := c.meters[id]
	if m == nil {
		m = &meter{}
		c.meters[id] = m
	}
	if now := c.cfg.Now().Unix(); m.second != now {
		m.second, m.reads = now, 0
	}
	m.reads++
	return m.reads > c.cfg.VaultReads
}

func parseRegion(id string) image.Region {
	r, err := image.ParseRegion(id)
	if err != nil {
		return image.Region{}
	}
	return r
}
