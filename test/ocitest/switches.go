package ocitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Switches set the behaviour of OCI that is not confirmed. Each field is a question
// that Oracle's documents leave open. README.md lists the questions, and says how to
// ask a real tenancy. A client must be correct under every setting.
type Switches struct {
	// SubtreeWithoutRoot is the answer to a list over the whole tenancy. The caller
	// has rights on some compartments but not on the root: "404", "filtered" to what
	// the caller may see, or "all".
	SubtreeWithoutRoot string `json:"subtreeWithoutRoot"`
	// ListDenied is the answer to a list in a compartment where the caller has no
	// right: "404" or "empty".
	ListDenied string `json:"listDenied"`
	// LookupPermission is the permission that LookupContainerImageByUri needs.
	LookupPermission string `json:"lookupPermission"`
	// PageLimit is the largest page of any list.
	PageLimit int `json:"pageLimit"`
	// OverLimit is the answer to a limit above PageLimit: "400" or "clamp".
	OverLimit string `json:"overLimit"`
	// Order is the order of a list without a requested order: "DESC" or "ASC" by
	// time.
	Order string `json:"order"`
	// EmptyPages puts an empty page before every full one. The empty page has a next
	// page.
	EmptyPages bool `json:"emptyPages"`
	// PEMLabel is the PEM label of a key version's public key: "PUBLIC KEY" or "RSA
	// PUBLIC KEY".
	PEMLabel string `json:"pemLabel"`
	// Salt is the PSS salt's length: "hash" or "max".
	Salt string `json:"salt"`
	// DisabledCrypto is the answer to Sign and Verify with an unusable key: "409" or
	// "404".
	DisabledCrypto string `json:"disabledCrypto"`
	// DisabledVersion is the answer to GetKeyVersion of an unusable key: "shown",
	// "409" or "404".
	DisabledVersion string `json:"disabledVersion"`
	// VaultHosts says which of a vault's two host names resolve: "listed" (the form
	// that oci-cli's list has for the region), "inverse" (the other form) or "both".
	VaultHosts string `json:"vaultHosts"`
	// UploadValidation makes the registry check a signed message before it stores
	// the record: the message must be about this image and name the key of the
	// record.
	UploadValidation bool `json:"uploadValidation"`
	// UploadCompartment makes the registry reject a signature record whose
	// compartment is not the image's. Otherwise it ignores the compartment in the
	// request.
	UploadCompartment bool `json:"uploadCompartment"`
	// UploadTwice allows a second signature record by the same key version and
	// algorithm.
	UploadTwice bool `json:"uploadTwice"`
	// DeletedRecords says how a list treats deleted signature records and images:
	// "gone", or "listed" with their lifecycle state.
	DeletedRecords string `json:"deletedRecords"`
	// IndexChildren says whether the manifests inside a pushed image index are
	// separate images: "listed" or "hidden".
	IndexChildren string `json:"indexChildren"`
	// DotDot says how OCI treats ".." in a path: "refused" or "normalised".
	DotDot string `json:"dotDot"`
	// OCIDRegion is the form of the region in new OCIDs: "key" (iad) or "id"
	// (us-ashburn-1).
	OCIDRegion string `json:"ocidRegion"`
	// ScanImage is the name of the image in a scan result: "tag", or "name" for
	// repository:tag.
	ScanImage string `json:"scanImage"`
	// ResultURL says whether a result names its registry: "given" or "absent".
	ResultURL string `json:"resultURL"`
	// FirstScans is how many images of each repository a new target scans, if its
	// recipe sets no number.
	FirstScans int `json:"firstScans"`
	// ScanDenied is the state of a target whose images the service may not read:
	// "failed", or "silent" for an active target without results.
	ScanDenied string `json:"scanDenied"`
	// TargetRepository says whether the repositories in a new target must exist:
	// "checked" or "unchecked".
	TargetRepository string `json:"targetRepository"`
	// KeyVersionOCID is the layout of new key version OCIDs: "vault" or "zero".
	KeyVersionOCID string `json:"keyVersionOCID"`
	// Delegation says who may use a delegation token: "bound" for its own instance
	// only, or "any" instance.
	Delegation string `json:"delegation"`
	// OIDCRefusal is the status with which an identity domain rejects the token of
	// another issuer: "400" or "401".
	OIDCRefusal string `json:"oidcRefusal"`
	// ShellTenancy is the tenancy of Cloud Shell's instance: "oracle", or the user's
	// "own".
	ShellTenancy string `json:"shellTenancy"`
	// ClusterKeys says which keys a cluster's OKE image policy accepts: "RSA" only,
	// or "any".
	ClusterKeys string `json:"clusterKeys"`
}

// Strict returns an OCI that rejects everything it may, tells little and has small
// pages.
func Strict() Switches {
	return Switches{
		SubtreeWithoutRoot: "404",
		ListDenied:         "404",
		LookupPermission:   "REPOSITORY_READ",
		PageLimit:          10,
		OverLimit:          "400",
		Order:              "DESC",
		EmptyPages:         false,
		PEMLabel:           "PUBLIC KEY",
		Salt:               "hash",
		DisabledCrypto:     "409",
		DisabledVersion:    "404",
		VaultHosts:         "listed",
		UploadValidation:   true,
		UploadCompartment:  true,
		UploadTwice:        false,
		DeletedRecords:     "gone",
		IndexChildren:      "hidden",
		DotDot:             "refused",
		OCIDRegion:         "key",
		ScanImage:          "tag",
		ResultURL:          "absent",
		FirstScans:         1,
		ScanDenied:         "failed",
		TargetRepository:   "checked",
		KeyVersionOCID:     "vault",
		Delegation:         "bound",
		OIDCRefusal:        "400",
		ShellTenancy:       "oracle",
		ClusterKeys:        "RSA",
	}
}

// Lenient returns an OCI that accepts everything. It is the opposite of [Strict] in
// every switch.
func Lenient() Switches {
	return Switches{
		SubtreeWithoutRoot: "filtered",
		ListDenied:         "empty",
		LookupPermission:   "REPOSITORY_INSPECT",
		PageLimit:          100,
		OverLimit:          "clamp",
		Order:              "ASC",
		EmptyPages:         true,
		PEMLabel:           "RSA PUBLIC KEY",
		Salt:               "max",
		DisabledCrypto:     "404",
		DisabledVersion:    "shown",
		VaultHosts:         "inverse",
		UploadValidation:   false,
		UploadCompartment:  false,
		UploadTwice:        true,
		DeletedRecords:     "listed",
		IndexChildren:      "listed",
		DotDot:             "normalised",
		OCIDRegion:         "id",
		ScanImage:          "name",
		ResultURL:          "given",
		FirstScans:         4,
		ScanDenied:         "silent",
		TargetRepository:   "unchecked",
		KeyVersionOCID:     "zero",
		Delegation:         "any",
		OIDCRefusal:        "401",
		ShellTenancy:       "own",
		ClusterKeys:        "any",
	}
}

// PresetEnv names the environment variable that [FromEnvironment] reads.
const PresetEnv = "OKE_SIGN_TEST_OCI"

// FromEnvironment returns the preset that OKE_SIGN_TEST_OCI names, or [Strict] if
// the variable is empty. A test suite runs once under each preset.
func FromEnvironment() (Switches, error) {
	s, err := ParseSwitches(os.Getenv(PresetEnv))
	if err != nil {
		return Switches{}, fmt.Errorf("reading %s: %w", PresetEnv, err)
	}
	return s, nil
}

// ParseSwitches reads "strict" (also "a" or ""), "lenient" (also "b"), and either of
// them followed by changes: "lenient,salt=hash,pageLimit=3".
func ParseSwitches(text string) (Switches, error) {
	name, rest, _ := strings.Cut(text, ",")
	var s Switches
	switch name {
	case "", "a", "strict":
		s = Strict()
	case "b", "lenient":
		s = Lenient()
	default:
		return Switches{}, fmt.Errorf("preset %q is neither strict nor lenient", name)
	}
	for change := range strings.SplitSeq(rest, ",") {
		if change == "" {
			continue
		}
		key, value, ok := strings.Cut(change, "=")
		if !ok {
			return Switches{}, fmt.Errorf("switch %q has no value", change)
		}
		if err := s.set(key, value); err != nil {
			return Switches{}, err
		}
	}
	return s, s.Validate()
}

func (s *Switches) set(key, value string) error {
	var raw any = value
	if b, err := strconv.ParseBool(value); err == nil && (value == "true" || value == "false") {
		raw = b
	} else if n, err := strconv.Atoi(value); err == nil && (key == "pageLimit" || key == "firstScans") {
		raw = n
	}
	change, err := json.Marshal(map[string]any{key: raw})
	if err != nil {
		return fmt.Errorf("switch %s: %w", key, err)
	}
	dec := json.NewDecoder(bytes.NewReader(change))
	dec.DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		return fmt.Errorf("switch %s: %w", key, err)
	}
	return nil
}

// Validate returns an error if a switch has an unknown setting.
func (s Switches) Validate() error {
	if s.PageLimit < 1 || s.PageLimit > 1000 {
		return fmt.Errorf("switch pageLimit: %d is not between 1 and 1000", s.PageLimit)
	}
	if s.FirstScans < 1 || s.FirstScans > 1000 {
		return fmt.Errorf("switch firstScans: %d is not between 1 and 1000", s.FirstScans)
	}
	allowed := map[string][]string{
		"subtreeWithoutRoot": {"404", "filtered", "all"},
		"listDenied":         {"404", "empty"},
		"lookupPermission":   {"REPOSITORY_READ", "REPOSITORY_INSPECT"},
		"overLimit":          {"400", "clamp"},
		"order":              {"DESC", "ASC"},
		"pemLabel":           {"PUBLIC KEY", "RSA PUBLIC KEY"},
		"salt":               {"hash", "max"},
		"disabledCrypto":     {"409", "404"},
		"disabledVersion":    {"shown", "409", "404"},
		"vaultHosts":         {"listed", "inverse", "both"},
		"deletedRecords":     {"gone", "listed"},
		"indexChildren":      {"listed", "hidden"},
		"dotDot":             {"refused", "normalised"},
		"ocidRegion":         {"key", "id"},
		"scanImage":          {"tag", "name"},
		"resultURL":          {"given", "absent"},
		"scanDenied":         {"failed", "silent"},
		"targetRepository":   {"checked", "unchecked"},
		"keyVersionOCID":     {"vault", "zero"},
		"delegation":         {"bound", "any"},
		"oidcRefusal":        {"400", "401"},
		"shellTenancy":       {"oracle", "own"},
		"clusterKeys":        {"RSA", "any"},
	}
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("json")
		if v.Field(i).Kind() != reflect.String {
			continue
		}
		if got := v.Field(i).String(); !slices.Contains(allowed[name], got) {
			return fmt.Errorf("switch %s: %q is not one of %s", name, got, strings.Join(allowed[name], ", "))
		}
	}
	return nil
}
