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

// Switches settles what is unconfirmed about OCI. Every field is a question
// that Oracle's documents leave open; README.md words each of them and says how
// to ask a real tenancy. A client must do the right thing under every setting.
type Switches struct {
	// SubtreeWithoutRoot answers a list over the whole tenancy by a caller with
	// rights on some compartments but not on the root: "404", "filtered" to
	// what the caller may see, or "all".
	SubtreeWithoutRoot string `json:"subtreeWithoutRoot"`
	// ListDenied answers a list in a compartment where the caller has no right:
	// "404" or "empty".
	ListDenied string `json:"listDenied"`
	// LookupPermission is what LookupContainerImageByUri asks for.
	LookupPermission string `json:"lookupPermission"`
	// PageLimit is the largest page of any list.
	PageLimit int `json:"pageLimit"`
	// OverLimit answers a limit above PageLimit: "400" or "clamp".
	OverLimit string `json:"overLimit"`
	// Order is how lists come when nobody asks: "DESC" or "ASC" by time.
	Order string `json:"order"`
	// EmptyPages puts an empty page with a next page before every full one.
	EmptyPages bool `json:"emptyPages"`
	// PEMLabel heads a key version's public key: "PUBLIC KEY" or "RSA PUBLIC KEY".
	PEMLabel string `json:"pemLabel"`
	// Salt is the PSS salt's length: "hash" or "max".
	Salt string `json:"salt"`
	// DisabledCrypto answers Sign and Verify with an unusable key: "409" or "404".
	DisabledCrypto string `json:"disabledCrypto"`
	// DisabledVersion answers GetKeyVersion of an unusable key: "shown", "409" or "404".
	DisabledVersion string `json:"disabledVersion"`
	// VaultHosts says which of a vault's two names resolve: "listed" (the form
	// that oci-cli's list gives the region), "inverse" (the other one) or "both".
	VaultHosts string `json:"vaultHosts"`
	// UploadValidation has the registry read a signature's message before it
	// keeps it: it must be about this image and name the key of the record.
	UploadValidation bool `json:"uploadValidation"`
	// UploadCompartment has the registry refuse a signature whose compartment is
	// not the image's; otherwise the caller's word is ignored.
	UploadCompartment bool `json:"uploadCompartment"`
	// UploadTwice allows a second record by the same key version and algorithm.
	UploadTwice bool `json:"uploadTwice"`
	// DeletedRecords says what a list shows of deleted signatures and images:
	// "gone", or "listed" with their lifecycle state.
	DeletedRecords string `json:"deletedRecords"`
	// IndexChildren says whether the manifests inside a pushed image index are
	// separate images: "listed" or "hidden".
	IndexChildren string `json:"indexChildren"`
	// DotDot says what becomes of ".." in a path: "refused" or "normalised".
	DotDot string `json:"dotDot"`
	// OCIDRegion is how new OCIDs name their region: "key" (iad) or "id" (us-ashburn-1).
	OCIDRegion string `json:"ocidRegion"`
	// ScanImage is how the result of a scan names its image: by "tag" or by
	// "name", repository:tag.
	ScanImage string `json:"scanImage"`
	// ResultURL says whether a result names its registry: "given" or "absent".
	ResultURL string `json:"resultURL"`
	// FirstScans is how many images of each repository a new target has scanned,
	// if its recipe does not say.
	FirstScans int `json:"firstScans"`
	// ScanDenied says what becomes of a target whose images the service may not
	// read: it is "failed", or active and "silent".
	ScanDenied string `json:"scanDenied"`
	// TargetRepository says whether the repositories that a new target names have
	// to be there: "checked" or "unchecked".
	TargetRepository string `json:"targetRepository"`
	// KeyVersionOCID is the layout of new key version OCIDs: "vault" or "zero".
	KeyVersionOCID string `json:"keyVersionOCID"`
	// Delegation says who may show a delegation token: "bound" to the instance it
	// was made for, or "any" instance.
	Delegation string `json:"delegation"`
	// OIDCRefusal is the status with which an identity domain refuses the token of
	// another issuer: "400" or "401".
	OIDCRefusal string `json:"oidcRefusal"`
	// ShellTenancy is whose the instance is that Cloud Shell runs on: of "oracle",
	// or the user's "own" tenancy.
	ShellTenancy string `json:"shellTenancy"`
	// ClusterKeys says whether a cluster's image policy refuses ECDSA keys, "RSA", or
	// takes "any".
	ClusterKeys string `json:"clusterKeys"`
}

// Strict is the OCI that refuses what it can, says little and has small pages.
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

// Lenient is the OCI that lets everything through and is opposite to [Strict]
// in every switch.
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

// FromEnvironment is the preset that OKE_SIGN_TEST_OCI names, [Strict] when it
// is empty. A test suite that is run twice, once under each, has seen both.
func FromEnvironment() (Switches, error) {
	s, err := ParseSwitches(os.Getenv(PresetEnv))
	if err != nil {
		return Switches{}, fmt.Errorf("reading %s: %w", PresetEnv, err)
	}
	return s, nil
}

// ParseSwitches reads "strict" (also "a", or nothing), "lenient" (also "b"),
// and any of them followed by changes: "lenient,salt=hash,pageLimit=3".
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

// Validate says which switch holds a setting that it does not have.
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
