package keyring

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// BindKeys adds --key for several keys. CheckKeys and FindAll read them.
func BindKeys(flags *pflag.FlagSet, keys *[]string, which string) {
	flags.StringSliceVar(keys, "key", nil, "`KEY`s "+which+", by OCID or name. May be repeated.")
}

// CheckKeys rejects malformed OCIDs in --key, and more than most keys, before a command
// asks OCI.
func CheckKeys(keys []string, most int) error {
	if len(keys) > most {
		return cli.Usage(fmt.Sprintf("--key lists %d keys, and the most is %d", len(keys), most), "omit unused keys")
	}
	for _, key := range keys {
		if key = strings.TrimSpace(key); key == "" {
			return cli.Usage("--key has an empty name", HintOCIDs)
		}
		if !isOCID(key) {
			continue
		}
		if _, err := signature.ParseKeyID(key); err != nil {
			return cli.Usage("--key: "+err.Error(), HintOCIDs)
		}
	}
	return nil
}

func isOCID(key string) bool { return strings.HasPrefix(key, "ocid1.") }

// FindAll returns the keys of --key, each once. It asks OCI only about names, and
// connects if c is nil.
//
// Everybody who may rename a key can take a name. So FindAll tells the user which key a
// name stands for, and rejects a name of two keys.
func FindAll(ctx context.Context, s *connect.Session, c *connect.Cloud, keys []string) ([]signature.KeyID, error) {
	var ids []signature.KeyID
	var found *Inventory
	for _, key := range keys {
		key = strings.TrimSpace(key)
		id, err := signature.ParseKeyID(key)
		if !isOCID(key) {
			if found == nil {
				if found, err = inventory(ctx, s, c); err != nil {
					return nil, err
				}
			}
			if id, err = found.withName(key); err == nil {
				s.Remark("key %s is %s", key, id)
			}
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// inventory returns all keys that the user may list.
func inventory(ctx context.Context, s *connect.Session, c *connect.Cloud) (*Inventory, error) {
	if c == nil {
		var err error
		if c, err = s.Connect(ctx); err != nil {
			return nil, err
		}
	}
	found := NewInventory(ctx, s, c)
	found.List(ctx)
	return found, nil
}

// ParseIDs reads OCIDs of keys, each once.
func ParseIDs(ocids []string) ([]signature.KeyID, error) {
	var ids []signature.KeyID
	for _, s := range ocids {
		id, err := signature.ParseKeyID(strings.TrimSpace(s))
		if err != nil {
			return nil, cli.Usage("--key: "+err.Error(), HintOCIDs)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
