package ocitest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// verbs are OCI's verbs. Each verb includes those before it.
var verbs = [...]string{"inspect", "read", "use", "manage"}

// permissionsOf returns the permissions that a verb adds for a resource type, as
// Oracle's policy reference lists them.
func permissionsOf(resource, verb string) []string {
	switch resource + " " + verb {
	case "repos inspect":
		return []string{"REPOSITORY_INSPECT"}
	case "repos read":
		return []string{"REPOSITORY_READ"}
	case "repos manage":
		return []string{"REPOSITORY_CREATE", "REPOSITORY_DELETE", "REPOSITORY_UPDATE", "REPOSITORY_MANAGE"}
	case "keys inspect":
		return []string{"KEY_INSPECT"}
	case "keys read":
		return []string{"KEY_READ"}
	case "keys use":
		return []string{"KEY_ENCRYPT", "KEY_DECRYPT", "KEY_EXPORT", "KEY_SIGN", "KEY_VERIFY"}
	case "keys manage":
		return []string{"KEY_CREATE", "KEY_UPDATE", "KEY_ROTATE", "KEY_DELETE", "KEY_MOVE", "KEY_IMPORT", "KEY_BACKUP", "KEY_RESTORE"}
	case "clusters inspect":
		return []string{"CLUSTER_INSPECT"}
	case "clusters read":
		return []string{"CLUSTER_READ"}
	case "clusters use":
		return []string{"CLUSTER_USE", "CLUSTER_UPDATE"}
	case "cluster-work-requests inspect":
		return []string{"CLUSTER_WORK_REQUEST_INSPECT"}
	case "cluster-work-requests read":
		return []string{"CLUSTER_WORK_REQUEST_READ"}
	case "vaults inspect":
		return []string{"VAULT_INSPECT"}
	case "vaults read":
		return []string{"VAULT_READ"}
	case "vaults use":
		return []string{"VAULT_CREATE_KEY", "VAULT_IMPORT_KEY"}
	case "vaults manage":
		return []string{"VAULT_CREATE", "VAULT_UPDATE", "VAULT_DELETE", "VAULT_MOVE"}
	case "compartments inspect":
		return []string{"COMPARTMENT_INSPECT"}
	case "compartments read":
		return []string{"COMPARTMENT_READ"}
	case "policies inspect":
		return []string{"POLICY_READ"} // as Oracle calls it
	case "dynamic-groups inspect":
		return []string{"DYNAMIC_GROUP_INSPECT"}
	case "dynamic-groups manage":
		return []string{"DYNAMIC_GROUP_CREATE", "DYNAMIC_GROUP_UPDATE", "DYNAMIC_GROUP_DELETE"}
	case "policies manage":
		return []string{"POLICY_CREATE", "POLICY_UPDATE", "POLICY_DELETE"}
	case "tenancies inspect":
		return []string{"TENANCY_INSPECT"}
	case "objectstorage-namespaces inspect", "objectstorage-namespaces read":
		return []string{"OBJECTSTORAGE_NAMESPACE_READ"}
	}
	for name, prefix := range map[string]string{
		"container-scan-recipes": "VSS_CONTAINERSCANRECIPE", "container-scan-targets": "VSS_CONTAINERSCANTARGET",
		"container-scan-results": "VSS_CONTAINERSCAN", "vss-work-requests": "VSS_WORKREQUEST",
	} {
		if name == resource {
			return map[string][]string{
				"inspect": {prefix + "_INSPECT"}, "read": {prefix + "_READ"}, "use": {prefix + "_UPDATE"},
				"manage": {prefix + "_CREATE", prefix + "_DELETE", prefix + "_MOVE"},
			}[verb]
		}
	}
	return nil
}

// resourceTypes returns the resource types that a word of a statement stands for.
func resourceTypes(name string) []string {
	families := map[string][]string{
		"key-family":     {"keys", "vaults"},
		"cluster-family": {"clusters", "cluster-work-requests"},
		"vss-family":     {"container-scan-recipes", "container-scan-targets", "container-scan-results", "vss-work-requests"},
	}
	all := slices.Concat([]string{"repos", "compartments", "tenancies", "policies", "dynamic-groups", "objectstorage-namespaces"}, families["key-family"], families["cluster-family"], families["vss-family"])
	switch {
	case name == "all-resources":
		return all
	case slices.Contains(all, name):
		return []string{name}
	}
	return families[name]
}

// statement is a parsed line of an IAM policy.
type statement struct {
	anyUser     bool
	users       []string // names or OCIDs
	groups      []string
	dynamic     []string // dynamic groups
	services    []string
	permissions []string
	location    string // "tenancy", or a compartment's OCID, name or path
	all         bool   // whether all conditions must hold; otherwise one is enough
	conditions  []condition
}

type condition struct {
	variable string
	negated  bool
	value    string
	pattern  bool
}

// words splits a statement into words. Quoted text and punctuation marks are words
// too.
func words(text string) ([]string, error) {
	var out []string
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimLeft(text, " \t\n") {
		switch text[0] {
		case '{', '}', ',', '=':
			out = append(out, text[:1])
			text = text[1:]
		case '!':
			if !strings.HasPrefix(text, "!=") {
				return nil, fmt.Errorf("a ! without =")
			}
			out = append(out, "!=")
			text = text[2:]
		case '\'', '/':
			end := strings.IndexByte(text[1:], text[0])
			if end < 0 {
				return nil, fmt.Errorf("%c does not end", text[0])
			}
			out = append(out, text[:end+2])
			text = text[end+2:]
		default:
			end := strings.IndexAny(text, " \t\n{},=!'")
			if end < 0 {
				end = len(text)
			}
			out = append(out, text[:end])
			text = text[end:]
		}
	}
	return out, nil
}

// parseStatement reads the part of OCI's policy language that this project's tools
// print: allow, subjects, a verb or permissions, a location, conditions.
func parseStatement(text string) (statement, error) {
	toks, err := words(text)
	if err != nil {
		return statement{}, fmt.Errorf("policy statement %q: %w", text, err)
	}
	p := parser{toks: toks}
	s, err := p.statement()
	if err != nil {
		return statement{}, fmt.Errorf("policy statement %q: %w", text, err)
	}
	return s, nil
}

// ValidateStatement returns an error if a line of an IAM policy is wrong.
func ValidateStatement(text string) error {
	_, err := parseStatement(text)
	return err
}

type parser struct{ toks []string }

func (p *parser) next() string {
	if len(p.toks) == 0 {
		return ""
	}
	t := p.toks[0]
	p.toks = p.toks[1:]
	return t
}

func (p *parser) peek() string {
	if len(p.toks) == 0 {
		return ""
	}
	return p.toks[0]
}

func (p *parser) expect(word string) error {
	if got := p.next(); !strings.EqualFold(got, word) {
		return fmt.Errorf("%q stands where %q should", got, word)
	}
	return nil
}

func (p *parser) statement() (s statement, err error) {
	if err := p.expect("allow"); err != nil {
		return s, err
	}
	switch kind := strings.ToLower(p.next()); kind {
	case "any-user":
		s.anyUser = true
	case "user", "group", "dynamic-group", "service":
		names := p.list()
		switch kind {
		case "user":
			s.users = names
		case "service":
			s.services = names
		case "dynamic-group":
			s.dynamic = names
		default:
			s.groups = names
		}
		if len(names) == 0 {
			return s, fmt.Errorf("no %s is named", kind)
		}
	default:
		return s, fmt.Errorf("subject %q is not known here", kind)
	}
	if err := p.expect("to"); err != nil {
		return s, err
	}
	if s.permissions, err = p.permissions(); err != nil {
		return s, err
	}
	if err := p.expect("in"); err != nil {
		return s, err
	}
	switch kind := strings.ToLower(p.next()); kind {
	case "tenancy":
		s.location = "tenancy"
	case "compartment":
		if strings.EqualFold(p.peek(), "id") {
			p.next()
		}
		s.location = strings.Trim(p.next(), "'")
	default:
		return s, fmt.Errorf("%q is no place", kind)
	}
	if s.location == "" {
		return s, fmt.Errorf("no compartment is named")
	}
	if p.peek() == "" {
		return s, nil
	}
	if err := p.expect("where"); err != nil {
		return s, err
	}
	return s, p.conditions(&s)
}

// list reads names with commas between them. The word "id" before an OCID is
// optional.
func (p *parser) list() []string {
	var names []string
	for {
		if strings.EqualFold(p.peek(), "id") {
			p.next()
		}
		names = append(names, strings.Trim(p.next(), "'"))
		if p.peek() != "," {
			return names
		}
		p.next()
	}
}

func (p *parser) permissions() ([]string, error) {
	if p.peek() == "{" {
		p.next()
		names := p.list()
		return names, p.expect("}")
	}
	verb, resource := strings.ToLower(p.next()), strings.ToLower(p.next())
	top := slices.Index(verbs[:], verb)
	types := resourceTypes(resource)
	if top < 0 || types == nil {
		return nil, fmt.Errorf("%q %q is not known here", verb, resource)
	}
	var out []string
	for _, t := range types {
		for _, v := range verbs[:top+1] {
			out = append(out, permissionsOf(t, v)...)
		}
	}
	return out, nil
}

func (p *parser) conditions(s *statement) error {
	s.all = true
	block := false
	if word := strings.ToLower(p.peek()); word == "all" || word == "any" {
		s.all = word == "all"
		p.next()
		if err := p.expect("{"); err != nil {
			return err
		}
		block = true
	}
	for {
		c := condition{variable: strings.ToLower(p.next())}
		switch op := p.next(); op {
		case "=":
		case "!=":
			c.negated = true
		default:
			return fmt.Errorf("%q is no comparison", op)
		}
		value := p.next()
		c.pattern = strings.HasPrefix(value, "/")
		c.value = strings.Trim(value, "'/")
		if c.variable == "" || value == "" {
			return fmt.Errorf("a condition is not complete")
		}
		s.conditions = append(s.conditions, c)
		switch {
		case block && p.peek() == ",":
			p.next()
		case block:
			if err := p.expect("}"); err != nil {
				return err
			}
			return p.end()
		default:
			return p.end()
		}
	}
}

func (p *parser) end() error {
	if rest := p.peek(); rest != "" {
		return fmt.Errorf("%q stands after the end", rest)
	}
	return nil
}

// holds evaluates a condition with the variables of a request. A condition on a
// missing variable is false, also with a negation. OCI does the same.
func (c condition) holds(vars map[string]string) bool {
	got, ok := vars[c.variable]
	if !ok {
		return false
	}
	same := strings.EqualFold(got, c.value)
	if c.pattern {
		// OCI's asterisk matches slashes. The asterisk of path.Match does not.
		flat := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "/", "\x00")) }
		same, _ = path.Match(flat(c.value), flat(got))
	}
	return same != c.negated
}

func (s statement) covers(u *user, permission string, vars map[string]string) bool {
	subject := s.anyUser || u.Principal == nil && (slices.Contains(s.users, u.Name) || slices.Contains(s.users, u.ID) ||
		slices.ContainsFunc(s.groups, func(g string) bool { return slices.Contains(u.Groups, g) })) ||
		slices.ContainsFunc(s.dynamic, func(g string) bool { return slices.Contains(u.dynamic, g) })
	return subject && slices.Contains(s.permissions, permission) && s.fulfilled(vars)
}

// fulfilled reports whether the statement's conditions hold.
func (s statement) fulfilled(vars map[string]string) bool {
	if len(s.conditions) == 0 {
		return true
	}
	for _, c := range s.conditions {
		if c.holds(vars) != s.all {
			return !s.all
		}
	}
	return s.all
}

// located returns the compartment that a statement is about. The policy may be
// attached to another compartment.
func (w *world) located(t *tenancy, attached, location string) string {
	if location == "tenancy" {
		if attached != t.ID {
			return ""
		}
		return t.ID
	}
	if c, ok := w.Compartments[location]; ok && c.Tenancy == t.ID {
		if !w.within(c.ID, attached) {
			return ""
		}
		return c.ID
	}
	if c := w.Compartments[attached]; c.Parent != "" && strings.EqualFold(c.Name, location) {
		return attached // a policy may name the compartment to which it is attached
	}
	at := attached
	for name := range strings.SplitSeq(location, ":") {
		found := ""
		for _, c := range w.Compartments {
			if c.Parent == at && strings.EqualFold(c.Name, name) {
				found = c.ID
			}
		}
		if found == "" {
			return ""
		}
		at = found
	}
	return at
}

// may reports whether the caller has a permission in a compartment. target adds
// variables of the resource, as pairs of name and value.
func (c *call) may(permission, compartmentID string, target ...string) bool {
	t := c.tenancyOf(compartmentID)
	if c.who == nil || t == nil || c.who.Tenancy != t.ID {
		return false
	}
	_, operation, _ := strings.Cut(c.op, ".")
	vars := map[string]string{
		"request.operation":     operation,
		"request.permission":    permission,
		"request.region":        c.region.Key(),
		"target.compartment.id": compartmentID,
	}
	if c.who.Principal == nil {
		vars["request.user.id"], vars["request.user.name"] = c.who.ID, c.who.Name
	}
	maps.Copy(vars, c.who.Principal)
	for i := 0; i < len(target); i += 2 {
		vars[target[i]] = target[i+1]
	}
	return c.allowed(t, compartmentID, func(s statement) bool { return s.covers(c.who, permission, vars) })
}

// allowed reports whether a statement that applies to a compartment passes the test
// does.
func (w *world) allowed(t *tenancy, compartmentID string, does func(statement) bool) bool {
	holds := func(attached, text string) bool {
		s, err := parseStatement(text)
		if err != nil {
			return false // rejected when it was added
		}
		at := w.located(t, attached, s.location)
		return at != "" && w.within(compartmentID, at) && does(s)
	}
	for _, text := range t.Policies {
		if holds(t.ID, text) {
			return true
		}
	}
	for _, p := range w.Policies {
		for _, text := range p.Statements {
			if w.tenancyOf(p.Compartment) == t && holds(p.Compartment, text) {
				return true
			}
		}
	}
	return false
}

// serviceMay reports whether a service of OCI has a permission in a compartment.
func (w *world) serviceMay(service, permission, compartmentID string) bool {
	t := w.tenancyOf(compartmentID)
	return t != nil && w.allowed(t, compartmentID, func(s statement) bool {
		return slices.Contains(s.services, service) && slices.Contains(s.permissions, permission) && len(s.conditions) == 0
	})
}

// need returns OCI's error if the caller lacks a permission.
func (c *call) need(permission, compartmentID string, target ...string) error {
	if c.may(permission, compartmentID, target...) {
		return nil
	}
	name := "nobody"
	if c.who != nil {
		name = c.who.Name
	}
	return notFound(fmt.Sprintf("%s has no %s in %s", name, permission, compartmentID))
}

// scope returns the compartments that a list covers, or nil if the caller may see
// none.
func (c *call) scope(permission string) (func(compartmentID string) bool, error) {
	id := c.query.Get("compartmentId")
	if id == "" {
		return nil, missing("compartmentId")
	}
	in, ok := c.Compartments[id]
	if !ok || c.who == nil || in.Tenancy != c.who.Tenancy {
		return nil, notFound("no compartment " + id)
	}
	subtree := c.query.Get("compartmentIdInSubtree")
	if err := oneOf("compartmentIdInSubtree", strings.ToLower(subtree), "true", "false"); err != nil {
		return nil, err
	}
	if strings.EqualFold(subtree, "true") {
		return c.subtree(permission, in)
	}
	if err := c.need(permission, id); err != nil {
		if c.sw.ListDenied == "empty" {
			return func(string) bool { return false }, nil
		}
		return nil, err
	}
	return func(other string) bool { return other == id }, nil
}

func (c *call) subtree(permission string, in *compartment) (func(string) bool, error) {
	if in.ID != in.Tenancy {
		return nil, invalid("compartmentIdInSubtree can only be true for the tenancy (root compartment)")
	}
	return c.below(permission, in)
}

// below covers a compartment and the compartments below it that the caller may see.
func (c *call) below(permission string, in *compartment) (func(string) bool, error) {
	below := func(other string) bool { return c.within(other, in.ID) }
	if c.may(permission, in.ID) {
		return below, nil
	}
	visible := func(other string) bool { return below(other) && c.may(permission, other) }
	switch c.sw.SubtreeWithoutRoot {
	case "filtered":
		return visible, nil
	case "all":
		for id := range c.Compartments {
			if visible(id) {
				return below, nil
			}
		}
	}
	return nil, c.need(permission, in.ID)
}
