package ocitest

import (
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

type vault struct {
	born
	Extension   string `json:"extension"`
	Region      string `json:"region"`
	Compartment string `json:"compartment"`
	Name        string `json:"name"`
	Type        string `json:"type"`
	Tags        tags   `json:"tags"`
	lifecycle
}

// lifecycle is a state, and optionally the state that follows it.
type lifecycle struct {
	State    string    `json:"lifecycleState"`
	Next     string    `json:"next,omitempty"`
	NextAt   time.Time `json:"nextAt"`
	Deletion time.Time `json:"timeOfDeletion"`
}

// pass enters a passing state. The next state follows after Config.Settle.
func (l *lifecycle) pass(now time.Time, settle time.Duration, passing, next string) {
	if settle == 0 {
		l.State, l.Next = next, ""
		return
	}
	l.State, l.Next, l.NextAt = passing, next, now.Add(settle)
}

// at returns the state at a time.
func (l *lifecycle) at(now time.Time) string {
	if l.Next != "" && !now.Before(l.NextAt) {
		l.State, l.Next = l.Next, ""
	}
	if l.State == "PENDING_DELETION" && !l.Deletion.IsZero() && !now.Before(l.Deletion) {
		l.State = "DELETED"
	}
	return l.State
}

func (w *world) vaultByExtension(ext string) *vault {
	if ext == "" {
		return nil
	}
	for _, v := range w.Vaults {
		if v.Extension == ext {
			return v
		}
	}
	return nil
}

func (w *world) newVault(region image.Region, compartmentID, name string, sw Switches) *vault {
	ext := w.unique(13)
	v := &vault{
		born:      w.birth(strings.Join([]string{"ocid1.vault", region.Realm(), regionPart(region, sw), ext, "ab" + w.unique(60)[2:]}, ".")),
		Extension: ext, Region: region.ID(), Compartment: compartmentID, Name: name, Type: "DEFAULT",
		lifecycle: lifecycle{State: "ACTIVE"},
	}
	w.Vaults[v.ID] = v
	return v
}

func vaultRoutes() []route {
	const s = "kms"
	return []route{
		to(s, "GET", "/20180608/vaults", "keymanagement.ListVaults", (*call).listVaults),
		to(s, "POST", "/20180608/vaults", "keymanagement.CreateVault", (*call).createVault).creating(),
		to(s, "GET", "/20180608/vaults/{id}", "keymanagement.GetVault", (*call).getVault),
		to(s, "POST", "/20180608/vaults/{id}/actions/scheduleDeletion", "keymanagement.ScheduleVaultDeletion", (*call).deleteVault).creating(),
		to(s, "POST", "/20180608/vaults/{id}/actions/cancelDeletion", "keymanagement.CancelVaultDeletion", (*call).keepVault).creating(),
	}
}

type vaultSummary struct {
	CompartmentID string `json:"compartmentId"`
	Crypto        string `json:"cryptoEndpoint"`
	DisplayName   string `json:"displayName"`
	ID            string `json:"id"`
	State         string `json:"lifecycleState"`
	Management    string `json:"managementEndpoint"`
	TimeCreated   string `json:"timeCreated"`
	Type          string `json:"vaultType"`
	Deletion      string `json:"timeOfDeletion,omitempty"`
	tags
}

type vaultView struct {
	vaultSummary
	WrappingKey string `json:"wrappingkeyId"`
	Primary     bool   `json:"isPrimary"`
}

func (c *call) summariseVault(v *vault) vaultSummary {
	form := c.cloud.vaultForms(v)[0]
	s := vaultSummary{
		CompartmentID: v.Compartment, DisplayName: v.Name, ID: v.ID, State: v.at(c.now()), TimeCreated: stamp(v.Created), Type: v.Type,
		Crypto:     "https://" + v.Extension + "-crypto.kms." + form,
		Management: "https://" + v.Extension + "-management.kms." + form,
		tags:       v.Tags.full(),
	}
	if !v.Deletion.IsZero() {
		s.Deletion = stamp(v.Deletion)
	}
	return s
}

func (c *call) viewVault(v *vault) vaultView {
	return vaultView{
		vaultSummary: c.summariseVault(v),
		WrappingKey:  strings.Replace(v.ID, "ocid1.vault.", "ocid1.key.", 1),
		Primary:      true,
	}
}

func (c *call) listVaults() (any, error) {
	in, err := c.scope("VAULT_INSPECT")
	if err != nil {
		return nil, err
	}
	var found []*vault
	for _, v := range c.Vaults {
		if v.Region == c.region.ID() && in(v.Compartment) {
			found = append(found, v)
		}
	}
	if err := sorted(c, found, func(v *vault) string { return v.Name }); err != nil {
		return nil, err
	}
	found, _, err = page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]vaultSummary, len(found))
	for i, v := range found {
		items[i] = c.summariseVault(v)
	}
	return items, nil // the Key Management API answers with a bare array
}

func (c *call) createVault() (any, error) {
	var in struct {
		CompartmentID, DisplayName, VaultType string
		FreeformTags                          map[string]string
		DefinedTags                           map[string]map[string]any
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := required("compartmentId", in.CompartmentID, "displayName", in.DisplayName, "vaultType", in.VaultType); err != nil {
		return nil, err
	}
	if err := oneOf("vaultType", in.VaultType, "DEFAULT", "VIRTUAL_PRIVATE"); err != nil {
		return nil, err
	}
	if err := c.need("VAULT_CREATE", in.CompartmentID); err != nil {
		return nil, err
	}
	v := c.newVault(c.region, in.CompartmentID, in.DisplayName, c.sw)
	v.Type = in.VaultType
	v.Tags = c.created(tags{Freeform: in.FreeformTags, Defined: in.DefinedTags})
	v.pass(c.now(), c.cloud.cfg.Settle, "CREATING", "ACTIVE")
	return c.tagged(c.viewVault(v))
}

func (c *call) findVault(permission string) (*vault, error) {
	v, ok := c.Vaults[c.path["id"]]
	if !ok || v.Region != c.region.ID() {
		return nil, notFound("no vault " + c.path["id"])
	}
	return v, c.need(permission, v.Compartment, "target.vault.id", v.ID)
}

func (c *call) getVault() (any, error) {
	v, err := c.findVault("VAULT_READ")
	if err != nil {
		return nil, err
	}
	return c.tagged(c.viewVault(v))
}

func (c *call) deleteVault() (any, error) {
	v, err := c.findVault("VAULT_DELETE")
	if err != nil {
		return nil, err
	}
	if err := c.scheduleDeletion(&v.lifecycle, "ACTIVE"); err != nil {
		return nil, err
	}
	return c.tagged(c.viewVault(v))
}

func (c *call) keepVault() (any, error) {
	v, err := c.findVault("VAULT_DELETE")
	if err != nil {
		return nil, err
	}
	if err := c.cancelDeletion(&v.lifecycle, "ACTIVE"); err != nil {
		return nil, err
	}
	return c.tagged(c.viewVault(v))
}

// scheduleDeletion schedules the deletion of a vault, a key or a key version, in 7
// to 30 days.
func (c *call) scheduleDeletion(l *lifecycle, from ...string) error {
	state := l.at(c.now())
	ok := false
	for _, s := range from {
		ok = ok || s == state
	}
	if !ok {
		return conflict("IncorrectState", "The resource is %s.", state)
	}
	var in struct{ TimeOfDeletion *time.Time }
	if len(c.body) > 0 {
		if err := c.decode(&in); err != nil {
			return err
		}
	}
	const day = 24 * time.Hour
	at := c.now().Add(30 * day)
	if in.TimeOfDeletion != nil {
		at = *in.TimeOfDeletion
	}
	if in := at.Sub(c.now()); in < 7*day-time.Minute || in > 30*day+time.Minute {
		return invalid("timeOfDeletion: not 7 to 30 days from now")
	}
	l.Deletion = at
	l.pass(c.now(), c.cloud.cfg.Settle, "SCHEDULING_DELETION", "PENDING_DELETION")
	return nil
}

func (c *call) cancelDeletion(l *lifecycle, to string) error {
	if state := l.at(c.now()); state != "PENDING_DELETION" {
		return conflict("IncorrectState", "The resource is %s.", state)
	}
	l.Deletion = time.Time{}
	l.pass(c.now(), c.cloud.cfg.Settle, "CANCELLING_DELETION", to)
	return nil
}
