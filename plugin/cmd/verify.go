package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

type verifyOptions struct {
	*global
	targets targetFlags
	keys    []string
	resolve bool
	out     output

	allowed []signature.KeyID
}

func newVerify(g *global) *cobra.Command {
	o := &verifyOptions{global: g}
	cmd := &cobra.Command{
		Use:   "verify (IMAGE|TYPE/NAME|-f FILE)... [--key OCID]...",
		Short: "Find out whether images are signed by the right key",
		Long: `Find out whether each image is signed by at least one of up to five keys: images
named here, those of objects in the cluster, or those in manifests.

Without --key the keys are those of the cluster's policy, its OKESignedImages
constraints: of an object's images, the constraints that match the object or its
Pods. What a constraint exempts is judged all the same; what a cluster would
admit is for kubectl oke-sign check to say.

The answer is the one that oke-sign gives in a cluster: the signature must
verify with a key that is enabled now, and be about exactly this digest,
repository, key and key version.

Exit code 0: all are signed. 3: one is not. 1: it could not be found out. With
-o name, the images that are signed are printed, and no others.`,
		Example: `  kubectl oke-sign verify ` + exampleTag + ` --resolve \
    --key ` + exampleKey + `

  # All that a Deployment runs, by the policy of its cluster
  kubectl oke-sign verify deployment/web -n shop

  # In a pipeline: what is not signed, and why
  kubectl oke-sign verify $IMAGES --key $KEY -o json | jq '.[] | select(.signed != true)'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(notEmpty(cmd, "key"), o.complete()); err != nil {
				return err
			}
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	o.targets.bind(cmd.Flags(), g.kube)
	cmd.Flags().StringSliceVar(&o.keys, "key", nil, "`OCID`s of the keys to accept, one to five, instead of the cluster's policy. May be repeated.")
	cmd.Flags().BoolVar(&o.resolve, "resolve", false, "Judge the image that a tag points to now.")
	o.out.bind(cmd.Flags())
	return cmd
}

func (o *verifyOptions) complete() (err error) {
	o.allowed, err = parseKeys(o.keys)
	return err
}

// parseKeys reads the keys of --key, each once. Names are for signing: what an
// image must be signed by is told by OCID, because a name belongs to whoever
// gave it to a key last.
func parseKeys(ocids []string) ([]signature.KeyID, error) {
	var ids []signature.KeyID
	for _, s := range ocids {
		id, err := signature.ParseKeyID(strings.TrimSpace(s))
		if err != nil {
			return nil, usage("--key: "+err.Error(), hintOCIDs)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (o *verifyOptions) validate(args []string) error {
	if err := o.targets.validate(args, "kubectl oke-sign verify "+exampleTag+" --resolve --key OCID"); err != nil {
		return err
	}
	if len(o.allowed) > constraint.MaxKeys {
		return usage(fmt.Sprintf("--key lists %d keys, and a policy holds %d at most", len(o.allowed), constraint.MaxKeys), "ask again for the others")
	}
	return cmp.Or(o.global.validate(), o.out.validate())
}

// judged is an image and its verdict.
type judged struct {
	Image    string   `json:"image"`
	Policies []string `json:"policies,omitempty"` // the constraints whose keys it was held against
	verdict.Verdict
}

func (o *verifyOptions) run(ctx context.Context, args []string) error {
	columns := []column{{name: "image"}, {name: "signed"}, {name: "reason"},
		{name: "key", wide: true}, {name: "version", wide: true}, {name: "algorithm", wide: true}, {name: "signed at", wide: true},
		{name: "policy", wide: true}, {name: "detail"}}
	ctx, cancel := o.within(ctx)
	defer cancel()

	targets, err := o.targets.find(ctx, o.global, args)
	if err != nil {
		return o.finish(o.out, columns, allFailed([]string{""}, because(ctx, err)))
	}
	questions, err := o.plan(ctx, targets)
	if wrong := new(usageError); errors.As(err, &wrong) {
		return err
	}
	images := make([]string, len(questions))
	for i, q := range questions {
		images[i] = q.image
	}
	if err != nil {
		return o.finish(o.out, columns, allFailed(imagesOf(targets), because(ctx, err)))
	}
	return o.finish(o.out, columns, o.judge(ctx, questions, images))
}

func (o *verifyOptions) judge(ctx context.Context, questions []asked, images []string) []result {
	refs := make([]image.Reference, len(images))
	settled := make([]*verdict.Verdict, len(images))
	ask := false
	for i, s := range images {
		ref, err := image.Parse(s)
		switch {
		case err != nil:
			settled[i] = &verdict.Verdict{Reason: verdict.NotOCIRegistry, Detail: err.Error()}
		case ref.Digest() == "" && !o.resolve:
			settled[i] = &verdict.Verdict{Reason: verdict.NoDigest, Detail: "a tag can be moved; name the digest, or add --resolve"}
		default:
			refs[i], ask = ref, true
		}
	}
	var cloud *cloud
	var checker *verdict.Checker
	if ask {
		var err error
		if cloud, err = o.connectImages(ctx); err != nil {
			return allFailed(images, because(ctx, err))
		}
		checker = cloud.checker()
	}
	done := o.progress("asked about %d of %d images", len(images))
	return each(ctx, images, func(ctx context.Context, i int) result {
		defer done()
		q := questions[i]
		if settled[i] != nil {
			return o.show(images[i], q.policies, *settled[i])
		}
		ref, v, err := o.resolved(ctx, cloud, refs[i])
		for _, keys := range q.keys {
			if err != nil || v != nil && !v.Signed {
				break // every list of keys has to be satisfied
			}
			var got verdict.Verdict
			got, err = checker.Check(ctx, ref, keys)
			v = &got
		}
		if err != nil {
			return result{err: err, rows: [][]string{{o.name(images[i]), "unknown", "error", "", "", "", "", "", "see the error"}}}
		}
		return o.show(ref.String(), q.policies, *v)
	})
}

// resolved gives a reference its digest. That there is no such image is a verdict.
func (o *verifyOptions) resolved(ctx context.Context, c *cloud, ref image.Reference) (image.Reference, *verdict.Verdict, error) {
	if ref.Digest() != "" {
		return ref, nil, nil
	}
	img, err := c.registry.Image(ctx, ref)
	if errors.Is(err, registry.ErrNotFound) {
		return ref, &verdict.Verdict{Reason: verdict.ImageNotFound, Detail: "no such tag, or you may not read it"}, nil
	}
	if err != nil {
		return image.Reference{}, nil, err
	}
	ref, err = ref.WithDigest(img.Digest)
	return ref, nil, err
}

func (o *verifyOptions) show(name string, policies []string, v verdict.Verdict) result {
	r := result{target: name, value: judged{name, policies, v}, no: !v.Signed}
	word, detail := "no", v.Detail
	if v.Signed {
		word, r.names = "yes", []string{name}
		detail = fmt.Sprintf("by key %s at %s", short(v.Key), v.SignedAt)
	}
	r.rows = [][]string{{o.name(name), word, string(v.Reason), v.Key, v.KeyVersion, v.Algorithm, v.SignedAt, strings.Join(policies, ","), detail}}
	return r
}

func (o *verifyOptions) name(image string) string {
	if o.out.format == "wide" {
		return image
	}
	return brief(image)
}

// short is the end of an OCID, or nothing for none.
func short(ocid string) string {
	if ocid == "" {
		return ""
	}
	return signature.Short(ocid)
}
