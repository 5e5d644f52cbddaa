package ocitest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/oke-sign/oke-sign/provider/image"
)

const (
	maxManifest = 4 << 20
	maxBlob     = 256 << 20
	tokenLife   = time.Hour
)

// registryStore has the blobs of OCI Registry. Manifests are images, so they are in
// the world.
type registryStore struct {
	handler http.Handler // uploads and downloads, by go-containerregistry

	mu    sync.Mutex
	blobs map[string][]byte // the index is "repository OCID digest"
}

func (s *registryStore) init() {
	s.blobs = map[string][]byte{}
	s.handler = registry.New(registry.WithBlobHandler(s), registry.Logger(log.New(io.Discard, "", 0)))
}

type repositoryKey struct{}

// place returns the index of a blob. It uses the repository in the context, because
// go-containerregistry passes different repositories to different methods.
func place(ctx context.Context, h v1.Hash) string {
	repo, _ := ctx.Value(repositoryKey{}).(string)
	return repo + " " + h.String()
}

// Get opens a blob.
func (s *registryStore) Get(ctx context.Context, _ string, h v1.Hash) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[place(ctx, h)]
	if !ok {
		return nil, registry.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Stat returns the size of a blob.
func (s *registryStore) Stat(ctx context.Context, _ string, h v1.Hash) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[place(ctx, h)]
	if !ok {
		return 0, registry.ErrNotFound
	}
	return int64(len(b)), nil
}

// Put stores a blob, and checks its digest while reading.
func (s *registryStore) Put(ctx context.Context, _ string, h v1.Hash, rc io.ReadCloser) error {
	b, err := io.ReadAll(rc)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[place(ctx, h)] = b
	return nil
}

func (s *registryStore) has(repo, digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.blobs[repo+" "+digest]
	return ok
}

func (s *registryStore) add(repo string, blob []byte) string {
	sum := sha256.Sum256(blob)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[repo+" "+digest] = blob
	return digest
}

// copy gives one repository all blobs of another.
func (s *registryStore) copy(from, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, blob := range maps.Clone(s.blobs) {
		if digest, ok := strings.CutPrefix(name, from+" "); ok {
			s.blobs[to+" "+digest] = blob
		}
	}
}

// registryFailure is an error in the form of the distribution specification.
type registryFailure struct {
	status        int
	code, message string
}

func (f *registryFailure) Error() string { return f.code + ": " + f.message }

// pull is a request to the registry.
type pull struct {
	cloud     *Cloud
	w         http.ResponseWriter
	r         *http.Request
	region    image.Region
	who       *user // nil: anonymous
	namespace string
	name      string // the repository's name
	kind      string // "manifests", "blobs" or "tags"
	last      string // reference, digest or upload
}

// serveRegistry serves OCI Registry.
func (c *Cloud) serveRegistry(w http.ResponseWriter, r *http.Request, t *tunnel) {
	rec := &recorder{ResponseWriter: w}
	w = rec
	w.Header().Set(aboutHeader, about)
	w.Header().Set("Opc-Request-Id", requestID(r.Header.Get("Opc-Request-Id")))
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	p := &pull{cloud: c, w: w, r: r, region: t.end.region}
	entry := Request{Host: t.host, Method: r.Method, Target: r.RequestURI}
	entry.Operation = p.parse()
	token, hasToken := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if hasToken {
		if cl, err := c.readToken(token, "registry"); err == nil && cl.Tenant == p.region.ID() {
			c.mu.Lock()
			p.who = c.world.actor(cl.Subject)
			c.mu.Unlock()
		} else {
			hasToken = false
		}
	}
	if p.who != nil {
		entry.Tenancy, entry.User = p.who.Tenancy, p.who.ID
	}
	f := c.fault(entry)
	if f.before(c, r, t) {
		entry.Fault = f.Kind
		c.note(entry)
		return
	}
	if f.answers() {
		a := f.answer(c.respondTo(r))
		entry.Fault, entry.Status = f.Kind, a.status
		c.note(entry)
		c.write(w, a)
		return
	}
	var err error = &registryFailure{401, "UNAUTHORIZED", "authentication required"}
	if hasToken {
		err = p.serve()
	}
	if err != nil {
		p.refuse(t.host, err)
	}
	entry.Status = rec.status
	c.note(entry)
}

// recorder records the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader sends and records the status.
func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// parse reads the path and names the operation.
func (p *pull) parse() string {
	rest := strings.Trim(strings.TrimPrefix(p.r.URL.Path, "/v2"), "/")
	if rest == "" {
		return "registry.Ping"
	}
	for _, kind := range []string{"/manifests/", "/blobs/", "/tags/"} {
		path, last, ok := cutLast(rest, kind)
		namespace, name, ok2 := strings.Cut(path, "/")
		if ok && ok2 {
			p.namespace, p.name, p.kind, p.last = namespace, name, strings.Trim(kind, "/"), last
			method := map[string]string{"GET": "Get", "HEAD": "Get", "PUT": "Put", "POST": "Put", "PATCH": "Put", "DELETE": "Delete"}[p.r.Method]
			return "registry." + method + map[string]string{"manifests": "Manifest", "blobs": "Blob", "tags": "Tags"}[p.kind]
		}
	}
	return "registry.Unknown"
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (p *pull) refuse(host string, err error) {
	var f *registryFailure
	if !errors.As(err, &f) {
		f = &registryFailure{500, "UNKNOWN", err.Error()}
	}
	if f.status == 401 {
		challenge := fmt.Sprintf(`Bearer realm="https://%s/20180419/docker/token",service="%s"`, host, host)
		if p.name != "" {
			challenge += fmt.Sprintf(`,scope="repository:%s/%s:pull,push"`, p.namespace, p.name)
		}
		p.w.Header().Set("Www-Authenticate", challenge)
	}
	p.w.Header().Set("Content-Type", "application/json")
	p.w.WriteHeader(f.status)
	json.NewEncoder(p.w).Encode(map[string]any{"errors": []any{map[string]string{"code": f.code, "message": f.message}}}) //nolint:errcheck // a client that went away
}

func (p *pull) serve() error {
	if p.kind == "" {
		if strings.Trim(p.r.URL.Path, "/") != "v2" {
			return &registryFailure{404, "UNSUPPORTED", "no such page"}
		}
		p.w.WriteHeader(http.StatusOK)
		return nil
	}
	reading := p.r.Method == http.MethodGet || p.r.Method == http.MethodHead
	repo, err := p.repository(reading)
	if err != nil {
		return err
	}
	switch {
	case p.kind == "blobs":
		r := p.r.WithContext(context.WithValue(p.r.Context(), repositoryKey{}, repo))
		r.Body = http.MaxBytesReader(p.w, p.r.Body, maxBlob)
		p.cloud.registry.handler.ServeHTTP(p.w, r)
		return nil
	case p.kind == "tags" && reading && p.last == "list":
		return p.tags(repo)
	case p.kind == "manifests" && reading:
		return p.getManifest(repo)
	case p.kind == "manifests" && p.r.Method == http.MethodPut:
		return p.putManifest(repo)
	case p.kind == "manifests" && p.r.Method == http.MethodDelete:
		return p.deleteManifest(repo)
	}
	return &registryFailure{405, "UNSUPPORTED", "the operation is not supported"}
}

// repository returns the repository of a request, if the caller has a right to it. A
// push may make it in the root compartment.
func (p *pull) repository(reading bool) (string, error) {
	c := p.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	denied := &registryFailure{403, "DENIED", "requested access to the resource is denied"}
	name := "nobody"
	if p.who == nil {
		denied.status, denied.code = 401, "UNAUTHORIZED"
	} else {
		name = p.who.Name + " of " + p.who.Tenancy
	}
	t := c.world.tenancyByNamespace(p.namespace, p.region.Realm())
	if t == nil {
		denied.message += ": no tenancy has this namespace"
		return "", denied
	}
	denied.message += fmt.Sprintf(": %s has no right to %s %s in %s", name, p.r.Method, p.name, t.ID)
	cl := &call{world: c.world, sw: c.switches(c.world, t.ID), region: p.region, op: "registry.Pull", who: p.who, cloud: c}
	permission := "REPOSITORY_READ"
	if !reading {
		permission, cl.op = "REPOSITORY_UPDATE", "registry.Push"
	}
	repo := c.world.repositoryByName(p.region.ID(), t.ID, p.name)
	if repo != nil {
		if reading && repo.Public || cl.may(permission, repo.Compartment, "target.repo.name", repo.Name) {
			return repo.ID, nil
		}
		return "", denied
	}
	// Only a caller who could see or make a repository learns that it does not
	// exist.
	making := t.CreateOnFirstPush && cl.may("REPOSITORY_CREATE", t.ID, "target.repo.name", p.name)
	if reading || p.r.Method == http.MethodDelete {
		if making || cl.may(permission, t.ID, "target.repo.name", p.name) {
			return "", &registryFailure{404, "NAME_UNKNOWN", "repository name not known to registry"}
		}
		return "", denied
	}
	if !making {
		return "", denied
	}
	repo, err := c.world.newRepository(p.region.ID(), t.ID, p.name, cl.sw)
	if err != nil {
		return "", &registryFailure{400, "NAME_INVALID", "no name of a repository"}
	}
	repo.CreatedBy = p.who.ID
	return repo.ID, nil
}

func (p *pull) tags(repo string) error {
	p.cloud.mu.Lock()
	tags := []string{}
	for _, i := range p.cloud.world.Images {
		for _, v := range i.Versions {
			if i.Repository == repo && i.State == "AVAILABLE" {
				tags = append(tags, v.Version)
			}
		}
	}
	p.cloud.mu.Unlock()
	slices.Sort(tags)
	p.w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(p.w).Encode(map[string]any{"name": p.namespace + "/" + p.name, "tags": tags})
}

// reference returns the tag or the digest that a request for a manifest names.
func (p *pull) reference() (tag, digest string) {
	if strings.HasPrefix(p.last, "sha256:") {
		return "", p.last
	}
	return p.last, ""
}

func (p *pull) getManifest(repo string) error {
	p.cloud.mu.Lock()
	tag, digest := p.reference()
	i := p.cloud.world.imageBy(repo, tag, digest)
	var manifest []byte
	var mediaType string
	if i != nil {
		manifest, mediaType, digest = i.Manifest, i.MediaType, i.Digest
		if p.r.Method == http.MethodGet {
			i.Pulls++
			i.LastPull = p.cloud.world.now()
		}
	}
	p.cloud.mu.Unlock()
	if manifest == nil {
		return &registryFailure{404, "MANIFEST_UNKNOWN", "manifest unknown"}
	}
	h := p.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Docker-Content-Digest", digest)
	h.Set("Content-Length", strconv.Itoa(len(manifest)))
	p.w.WriteHeader(http.StatusOK)
	if p.r.Method == http.MethodGet {
		p.w.Write(manifest) //nolint:errcheck // a client that went away
	}
	return nil
}

func (p *pull) putManifest(repo string) error {
	body, err := io.ReadAll(http.MaxBytesReader(p.w, p.r.Body, maxManifest))
	if err != nil {
		return &registryFailure{413, "SIZE_INVALID", "the manifest is too large"}
	}
	sum := sha256.Sum256(body)
	own := "sha256:" + hex.EncodeToString(sum[:])
	tag, digest := p.reference()
	if digest != "" && digest != own {
		return &registryFailure{400, "DIGEST_INVALID", "the manifest's digest is " + own}
	}
	c := p.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := p.checkParts(repo, body); err != nil {
		return err
	}
	r := c.world.Repositories[repo]
	if old := c.world.imageBy(repo, tag, ""); r.Immutable && tag != "" && old != nil && old.Digest != own {
		return &registryFailure{409, "DENIED", "the repository is immutable"}
	}
	if _, err := c.world.putManifest(r, p.r.Header.Get("Content-Type"), body, own, tag, p.who.ID, c.switches(c.world, r.Compartment)); err != nil {
		return &registryFailure{400, "MANIFEST_INVALID", err.Error()}
	}
	p.w.Header().Set("Docker-Content-Digest", own)
	p.w.Header().Set("Location", "/v2/"+p.namespace+"/"+p.name+"/manifests/"+own)
	p.w.WriteHeader(http.StatusCreated)
	return nil
}

// checkParts rejects a manifest whose blobs or manifests are missing.
func (p *pull) checkParts(repo string, manifest []byte) error {
	var m struct {
		Config *struct{ Digest string }
		Layers []struct {
			Digest string
			URLs   []string
		}
		Manifests []struct{ Digest string }
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return &registryFailure{400, "MANIFEST_INVALID", "the manifest is no JSON"}
	}
	var blobs []string
	if m.Config != nil {
		blobs = append(blobs, m.Config.Digest)
	}
	for _, l := range m.Layers {
		if len(l.URLs) == 0 {
			blobs = append(blobs, l.Digest)
		}
	}
	for _, b := range blobs {
		if !p.cloud.registry.has(repo, b) {
			return &registryFailure{400, "MANIFEST_BLOB_UNKNOWN", "no blob " + b}
		}
	}
	for _, child := range m.Manifests {
		if p.cloud.world.imageBy(repo, "", child.Digest) == nil {
			return &registryFailure{400, "MANIFEST_BLOB_UNKNOWN", "no manifest " + child.Digest}
		}
	}
	return nil
}

func (p *pull) deleteManifest(repo string) error {
	c := p.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	c.world.scan()
	tag, digest := p.reference()
	i := c.world.imageBy(repo, tag, digest)
	if i == nil {
		return &registryFailure{404, "MANIFEST_UNKNOWN", "manifest unknown"}
	}
	if tag != "" {
		i.dropTag(tag)
	} else {
		i.State, i.Deleted, i.Versions = "DELETED", c.world.now(), nil
	}
	p.w.WriteHeader(http.StatusAccepted)
	return nil
}

func tokenRoutes() []route {
	return []route{to("ocir", "GET", "/20180419/docker/token", "containerregistry.GetAccessToken", (*call).getAccessToken)}
}

// getAccessToken issues a token of OCI Registry. A caller signs the request, or
// sends namespace/name and an auth token, or sends such a token as the user
// BEARER_TOKEN. Other callers get a token for public repositories. The registry
// checks rights when the token is used.
func (c *call) getAccessToken() (any, error) {
	if c.who == nil && c.in.Get("Authorization") != "" {
		who, ok := c.cloud.basicUser(&http.Request{Header: c.in}, c.region.Realm())
		if !ok {
			who, ok = c.tokenUser()
		}
		if !ok {
			return nil, unauthenticated("no user has this name and auth token")
		}
		c.who = who
	}
	cl := claims{
		Issuer: "oci-emulator", Kind: "registry", Tenant: c.region.ID(), Scope: c.query.Get("scope"),
		IssuedAt: c.cloud.cfg.Now().Unix(), Expires: c.cloud.cfg.Now().Add(tokenLife).Unix(),
	}
	if c.who != nil {
		if !c.subscribed() {
			return nil, unauthenticated("the tenancy is not subscribed to %s", c.region.ID())
		}
		cl.Subject = c.who.ID
	}
	token, err := c.cloud.issue(cl)
	if err != nil {
		return nil, err
	}
	return map[string]any{"token": token, "access_token": token, "scope": cl.Scope, "expires_in": int(tokenLife.Seconds())}, nil
}

// tokenUser returns the user of a registry token that was sent as a password.
func (c *call) tokenUser() (*user, bool) {
	name, token, _ := (&http.Request{Header: c.in}).BasicAuth()
	cl, err := c.cloud.readToken(token, "registry")
	if name != "BEARER_TOKEN" || err != nil || cl.Tenant != c.region.ID() {
		return nil, false
	}
	who := c.actor(cl.Subject)
	return who, who != nil
}
