package signing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

type signaturesOptions struct {
	*connect.Session
	targets workload.TargetFlags
	keys    []string
	out     cli.Output
}

// NewSignatures makes the command.
func NewSignatures(s *connect.Session) *cobra.Command {
	o := &signaturesOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "signatures (IMAGE|TYPE/NAME|-f FILE)...",
		Short: "List the signatures of images, and which hold",
		Long: `List the signatures of images, when and by whom they were made, and whether each
holds. Name the images, the objects of the cluster that use them, or manifests.

A signature holds if it verifies with the key that it names, this key is
enabled, and the signed message is about exactly this image. The command looks
up keys in the vaults that you may list, and the keys of --key. It looks up the
digest of a tag first, and shows it.

A signature that holds is no reason to trust its key: everybody who may push can
attach signatures. kubectl oke-sign verify checks keys that you trust. -o name
prints the OCIDs of the signatures.`,
		Example: `  kubectl oke-sign signatures ` + cli.ExampleTag + `

  # Of running Pods, with who made each signature and why it does not hold
  kubectl oke-sign signatures pods -n shop -l app=web -o wide

  # The digest that a tag points to now
  kubectl oke-sign signatures ` + cli.ExampleTag + ` \
    -o json | jq -r '.[].digest'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	o.targets.Bind(cmd.Flags(), s.Kube)
	keyring.BindKeys(cmd.Flags(), &o.keys, "to look up although you may not list their vaults")
	o.out.Bind(cmd.Flags())
	return cmd
}

func (o *signaturesOptions) complete(args []string) error {
	for _, arg := range args {
		if workload.IsObject(arg) || o.targets.IsType(arg) {
			continue
		}
		if _, err := tagOrDigest(arg); err != nil {
			return cli.Usage(err.Error(), err.Hint)
		}
	}
	return nil
}

// tagOrDigest parses an image with a tag or a digest. Other images have no
// signatures to look up.
func tagOrDigest(s string) (image.Reference, *cli.HintedError) {
	ref, err := image.Parse(s)
	if err != nil {
		return ref, &cli.HintedError{What: fmt.Errorf("%q: %w", s, err), Hint: "write it as <region>.ocir.io/<namespace>/<repository>:<tag> or @sha256:<digest>"}
	}
	if ref.Tag() == "" && ref.Digest() == "" {
		return ref, &cli.HintedError{What: fmt.Errorf("%q names neither a tag nor a digest", s), Hint: "add a tag, such as :latest, or a digest"}
	}
	return ref, nil
}

func (o *signaturesOptions) validate(args []string) error {
	return cmp.Or(o.targets.Validate(args, "kubectl oke-sign signatures "+cli.ExampleTag), keyring.CheckKeys(o.keys, maxNamed), o.ValidateFlags(), o.out.Validate())
}

// maxNamed is the maximum number of --key flags: the command looks up each key.
const maxNamed = 100

// signedImage is an image with its signatures.
type signedImage struct {
	Image      string              `json:"image"`
	Reference  string              `json:"reference,omitempty"` // the image by its digest
	Digest     string              `json:"digest,omitempty"`
	ID         string              `json:"id,omitempty"`
	Tags       []string            `json:"tags,omitempty"`
	Signatures []keyring.Signature `json:"signatures"`
}

var signatureColumns = []cli.Column{{Name: "signed at"}, {Name: "key"}, {Name: "holds"},
	{Name: "version", Wide: true}, {Name: "algorithm", Wide: true}, {Name: "signed by", Wide: true}, {Name: "id", Wide: true},
	{Name: "detail", Wide: true}, {Name: "description"}}

func (o *signaturesOptions) run(ctx context.Context, args []string) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	targets, err := o.targets.Find(ctx, o.Session, args)
	if err != nil {
		return o.Finish(o.out, signatureColumns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	images := workload.ImagesOf(targets)
	c, err := o.ConnectImages(ctx)
	var named []signature.KeyID
	if err == nil {
		named, err = keyring.FindAll(ctx, o.Session, c, o.keys)
	}
	if err != nil {
		return o.Finish(o.out, signatureColumns, cli.AllFailed(images, cli.StopCause(ctx, err)))
	}
	e := keyring.NewRecordVerifier(c, sync.OnceValue(func() *keyring.Inventory { return keyring.NewInventory(ctx, o.Session, c) }), named...)
	done := o.Progress("asked about %d of %d images", len(images))
	return o.Finish(o.out, signatureColumns, cli.ForEach(ctx, images, func(ctx context.Context, i int) cli.Result {
		defer done()
		return o.list(ctx, c, e, images[i])
	}))
}

func (o *signaturesOptions) list(ctx context.Context, c *connect.Cloud, e *keyring.RecordVerifier, name string) cli.Result {
	asked, wrong := tagOrDigest(name)
	if wrong != nil && errors.Is(wrong, image.ErrNotOCIRegistry) { // an object of the cluster has this image
		return cli.Result{Title: name, Value: signedImage{Image: name, Signatures: []keyring.Signature{}}, Notes: []string{wrong.Error() + ", and has no signatures there"}}
	}
	if wrong != nil {
		return cli.Result{Err: wrong}
	}
	img, ref, err := c.Pinned(ctx, asked)
	if err != nil {
		return cli.Result{Err: err}
	}
	records, _, err := c.Registry.Records(ctx, ref)
	if err != nil {
		return cli.Result{Err: err}
	}
	v := signedImage{
		Image: name, Reference: ref.String(), Digest: ref.Digest(),
		ID: img.ID, Tags: img.Tags, Signatures: []keyring.Signature{},
	}
	r := cli.Result{Title: v.Reference}
	who := o.signers(ctx, c, ref, records)
	for i, rec := range records {
		s, err := keyring.SignatureOf(ctx, e, ref, rec)
		if err != nil {
			note := cli.Brief(v.Reference) + ": " + s.Detail
			switch {
			case !errors.Is(err, keyring.ErrOtherVault) && !errors.Is(err, keyring.ErrTooManyKeys):
				r.PartialErr = cmp.Or(r.PartialErr, err)
			case !slices.Contains(r.Notes, note):
				r.Notes = append(r.Notes, note)
			}
		}
		s.SignedBy = who[i]
		v.Signatures = append(v.Signatures, s)
		r.Names = append(r.Names, s.ID)
		r.Rows = append(r.Rows, o.row(s))
	}
	r.Value = v
	return r
}

// maxSigners is the maximum number of calls that find the signers of an image's
// signatures. The command shows further records without a signer.
const maxSigners = 50

// signers returns the signer of each record, which lists of OCI omit. If OCI does
// not return a signer, it stays empty: the name comes from OCI and proves nothing.
func (o *signaturesOptions) signers(ctx context.Context, c *connect.Cloud, ref image.Reference, records []signature.Record) []string {
	who := make([]string, len(records))
	if o.out.Format == "table" || o.out.Format == "name" {
		return who // these formats do not show it
	}
	group := cli.Limited()
	for i := range records[:min(len(records), maxSigners)] {
		group.Go(func() error {
			if rec, err := c.Registry.Record(ctx, ref, records[i].ID); err == nil {
				who[i] = rec.CreatedBy
			}
			return nil
		})
	}
	_ = group.Wait()
	return who
}

func (o *signaturesOptions) row(s keyring.Signature) []string {
	holds := s.Holds
	if s.Holds == "no" {
		holds = "no: " + s.Reason
	}
	key, version, description := cli.Clip(cmp.Or(s.KeyName, signature.Short(s.Key)), 40), signature.Short(s.KeyVersion), cli.Clip(s.Description, 40)
	if o.out.Format == "wide" {
		key, version, description = s.Key, s.KeyVersion, cli.Clip(s.Description, 200)
	}
	return []string{s.SignedAt, key, holds, version, s.Algorithm, s.SignedBy, s.ID, s.Detail, description}
}
