package cmd

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

type signaturesOptions struct {
	*global
	targets targetFlags
	keys    []string
	out     output

	named []signature.KeyID
}

func newSignatures(g *global) *cobra.Command {
	o := &signaturesOptions{global: g}
	cmd := &cobra.Command{
		Use:   "signatures (IMAGE|TYPE/NAME|-f FILE)...",
		Short: "List the signatures of images, and say which hold",
		Long: `List the signatures that images have, those named here, those of objects in
the cluster, or those in manifests: when and by whom they were made, and whether
each holds, which is to say that it verifies with the key it names, that the key
is enabled, and that it is about exactly this image. Keys are looked up in the
vaults that you may list, and those of --key.

An image named by tag is looked up first, and shown with its digest. That a
signature holds does not make its key one to be trusted, because whoever may
push can attach signatures: for that there is kubectl oke-sign verify. With
-o name, the OCIDs of the signatures are printed.`,
		Example: `  kubectl oke-sign signatures ` + exampleTag + `

  # Of what runs, with who made each signature and why it does not hold
  kubectl oke-sign signatures pods -n shop -l app=web -o wide

  # The digest that a tag points to now
  kubectl oke-sign signatures ` + exampleTag + ` -o json | jq -r '.[].digest'`,
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
	o.targets.bind(cmd.Flags(), g.kube)
	cmd.Flags().StringSliceVar(&o.keys, "key", nil, "`OCID`s of keys to verify with that lie in vaults you may not list.")
	o.out.bind(cmd.Flags())
	return cmd
}

func (o *signaturesOptions) complete(args []string) error {
	for _, arg := range args {
		if isObject(arg) || o.targets.isType(arg) {
			continue
		}
		if _, err := tagOrDigest(arg); err != nil {
			return usage(err.Error(), err.hint)
		}
	}
	var err error
	o.named, err = parseKeys(o.keys)
	return err
}

// tagOrDigest reads an image whose signatures can be looked up.
func tagOrDigest(s string) (image.Reference, *refusal) {
	ref, err := image.Parse(s)
	if err != nil {
		return ref, &refusal{fmt.Errorf("%q: %w", s, err), "write it as <region>.ocir.io/<namespace>/<repository>:<tag> or @sha256:<digest>"}
	}
	if ref.Tag() == "" && ref.Digest() == "" {
		return ref, &refusal{fmt.Errorf("%q names neither a tag nor a digest", s), "add :latest, or the tag that is meant"}
	}
	return ref, nil
}

func (o *signaturesOptions) validate(args []string) error {
	return cmp.Or(o.targets.validate(args, "kubectl oke-sign signatures "+exampleTag), o.global.validate(), o.out.validate())
}

// signedImage is an image with its signatures.
type signedImage struct {
	Image      string            `json:"image"`
	Reference  string            `json:"reference,omitempty"` // the image by its digest
	Digest     string            `json:"digest,omitempty"`
	ID         string            `json:"id,omitempty"`
	Tags       []string          `json:"tags,omitempty"`
	Signatures []listedSignature `json:"signatures"`
}

// listedSignature is a record. Description and metadata are told of a message
// only once its signature has been verified: before, they are anybody's.
type listedSignature struct {
	ID          string `json:"id"`
	Holds       string `json:"holds"` // yes, no, unknown
	Reason      string `json:"reason,omitempty"`
	Detail      string `json:"detail,omitempty"`
	Key         string `json:"key"`
	KeyName     string `json:"keyName,omitempty"`
	KeyVersion  string `json:"keyVersion"`
	Algorithm   string `json:"algorithm"`
	SignedAt    string `json:"signedAt,omitempty"`
	SignedBy    string `json:"signedBy,omitempty"`
	Description string `json:"description,omitempty"`
	Metadata    string `json:"metadata,omitempty"`
}

var signatureColumns = []column{{name: "signed at"}, {name: "key"}, {name: "holds"},
	{name: "version", wide: true}, {name: "algorithm", wide: true}, {name: "signed by", wide: true}, {name: "id", wide: true},
	{name: "detail", wide: true}, {name: "description"}}

func (o *signaturesOptions) run(ctx context.Context, args []string) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	targets, err := o.targets.find(ctx, o.global, args)
	if err != nil {
		return o.finish(o.out, signatureColumns, allFailed([]string{""}, because(ctx, err)))
	}
	images := imagesOf(targets)
	c, err := o.connectImages(ctx)
	if err != nil {
		return o.finish(o.out, signatureColumns, allFailed(images, because(ctx, err)))
	}
	e := c.examiner(sync.OnceValue(func() *survey { return o.survey(ctx, c) }), o.named...)
	done := o.progress("asked about %d of %d images", len(images))
	return o.finish(o.out, signatureColumns, each(ctx, images, func(ctx context.Context, i int) result {
		defer done()
		return o.list(ctx, c, e, images[i])
	}))
}

func (o *signaturesOptions) list(ctx context.Context, c *cloud, e *examiner, name string) result {
	asked, wrong := tagOrDigest(name)
	if wrong != nil && errors.Is(wrong, image.ErrNotOCIRegistry) { // an object names it
		return result{title: name, value: signedImage{Image: name, Signatures: []listedSignature{}}, notes: []string{wrong.Error() + ", and has no signatures there"}}
	}
	if wrong != nil {
		return result{err: wrong}
	}
	img, ref, err := c.pinned(ctx, asked)
	if err != nil {
		return result{err: err}
	}
	records, err := c.registry.Records(ctx, ref)
	if err != nil {
		return result{err: err}
	}
	v := signedImage{
		Image: name, Reference: ref.String(), Digest: ref.Digest(),
		ID: img.ID, Tags: img.Tags, Signatures: []listedSignature{},
	}
	r := result{title: v.Reference}
	who := o.signers(ctx, c, ref, records)
	for i, rec := range records {
		s, err := listed(ctx, e, ref, rec)
		if err != nil {
			note := brief(v.Reference) + ": " + s.Detail
			switch {
			case !errors.Is(err, errForeignVault) && !errors.Is(err, errTooManyKeys):
				r.part = cmp.Or(r.part, err)
			case !slices.Contains(r.notes, note):
				r.notes = append(r.notes, note)
			}
		}
		s.SignedBy = who[i]
		v.Signatures = append(v.Signatures, s)
		r.names = append(r.names, s.ID)
		r.rows = append(r.rows, o.row(s))
	}
	r.value = v
	return r
}

// maxSigners bounds the calls that find out who made the signatures of an image;
// records beyond it are shown without.
const maxSigners = 50

// signers asks who made the records, which lists of OCI leave out. What cannot
// be found out is left out too: it is a word of OCI's, and proves nothing.
func (o *signaturesOptions) signers(ctx context.Context, c *cloud, ref image.Reference, records []signature.Record) []string {
	who := make([]string, len(records))
	if o.out.format == "table" || o.out.format == "name" {
		return who // it has no place there
	}
	group := limited()
	for i := range records[:min(len(records), maxSigners)] {
		group.Go(func() error {
			if rec, err := c.registry.Record(ctx, ref, records[i].ID); err == nil {
				who[i] = rec.CreatedBy
			}
			return nil
		})
	}
	_ = group.Wait()
	return who
}

// listed is one record, and what there is to say about it. A key that cannot be
// asked for leaves this record unknown, and the others as they are; the error
// says why.
func listed(ctx context.Context, e *examiner, ref image.Reference, rec signature.Record) (listedSignature, error) {
	s := listedSignature{
		ID: rec.ID, Key: rec.KeyID, KeyVersion: rec.KeyVersionID, Algorithm: rec.Algorithm,
		SignedAt: timestamp(rec.TimeCreated),
	}
	verdict, key, err := e.examine(ctx, ref, rec)
	s.KeyName = key.Name
	switch {
	case err != nil:
		err = because(ctx, err)
		s.Holds, s.Detail = "unknown", clip(err.Error(), 400)
	case !verdict.Signed:
		s.Holds, s.Reason, s.Detail = "no", string(verdict.Reason), verdict.Detail
	default:
		s.Holds = "yes"
		// It has just been verified, so it decodes and parses.
		text, _ := base64.StdEncoding.DecodeString(rec.Message)
		if m, err := signature.ParseMessage(text); err == nil {
			s.Description, s.Metadata = m.Description, m.Metadata
		}
	}
	return s, err
}

func (o *signaturesOptions) row(s listedSignature) []string {
	holds := s.Holds
	if s.Holds == "no" {
		holds = "no: " + s.Reason
	}
	key, version, description := clip(cmp.Or(s.KeyName, short(s.Key)), 40), short(s.KeyVersion), clip(s.Description, 40)
	if o.out.format == "wide" {
		key, version, description = s.Key, s.KeyVersion, clip(s.Description, 200)
	}
	return []string{s.SignedAt, key, holds, version, s.Algorithm, s.SignedBy, s.ID, s.Detail, description}
}
