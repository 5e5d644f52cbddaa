package signing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

type verifyOptions struct {
	*connect.Session
	targets workload.TargetFlags
	keys    []string
	resolve bool
	out     cli.Output

	allowed []signature.KeyID
}

// NewVerify makes the command.
func NewVerify(s *connect.Session) *cobra.Command {
	o := &verifyOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "verify (IMAGE|TYPE/NAME|-f FILE)... [--key KEY]...",
		Short: "Verify that images are signed by a key that you trust",
		Long: `Verify that each image is signed by at least one of up to five keys. Name the
images, the objects of the cluster that use them, or manifests.

--key takes names and OCIDs. A pipeline should name OCIDs: everybody who may
rename a key can take its name.

Without --key, the keys are those of the cluster's OKESignedImages constraints.
For the images of an object, they are those of the constraints that match the
object or its Pods. The command verifies exempt images too; kubectl oke-sign
check says what a cluster would admit.

The verdict is the one that oke-sign gives in a cluster. The signature must
verify with a key that is enabled now. It must be about exactly this digest,
repository, key and key version.

Exit code 0: all images are signed. 3: one is not. 1: the command failed. -o
name prints only the signed images.`,
		Example: `  kubectl oke-sign verify ` + cli.ExampleTag + ` \
    --resolve --key image-key

  # All images of a Deployment, by the policy of its cluster
  kubectl oke-sign verify deployment/web -n shop

  # In a pipeline: the images that are not signed, and why
  kubectl oke-sign verify $IMAGES --key $KEY -o json |
    jq '.[] | select(.signed != true)'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(cli.NotEmpty(cmd, "key"), o.validate(args)); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	o.targets.Bind(cmd.Flags(), s.Kube)
	keyring.BindKeys(cmd.Flags(), &o.keys, "to accept, one to five, instead of those of the cluster's policy")
	cmd.Flags().BoolVar(&o.resolve, "resolve", false, "Verify the image that a tag points to now.")
	o.out.Bind(cmd.Flags())
	return cmd
}

func (o *verifyOptions) validate(args []string) error {
	if err := o.targets.Validate(args, "kubectl oke-sign verify "+cli.ExampleTag+" --resolve --key image-key"); err != nil {
		return err
	}
	return cmp.Or(keyring.CheckKeys(o.keys, constraint.MaxKeys), o.ValidateFlags(), o.out.Validate())
}

// judged is an image and its verdict.
type judged struct {
	Image    string   `json:"image"`
	Policies []string `json:"policies,omitempty"` // the constraints whose keys it was held against
	verdict.Members
}

func (o *verifyOptions) run(ctx context.Context, args []string) error {
	columns := []cli.Column{{Name: "image"}, {Name: "signed"}, {Name: "reason"},
		{Name: "key", Wide: true}, {Name: "version", Wide: true}, {Name: "algorithm", Wide: true}, {Name: "signed at", Wide: true},
		{Name: "policy", Wide: true}, {Name: "detail"}}
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()

	targets, err := o.targets.Find(ctx, o.Session, args)
	if err == nil {
		o.allowed, err = keyring.FindAll(ctx, o.Session, nil, o.keys)
	}
	if err != nil {
		return o.Finish(o.out, columns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	questions, err := o.plan(ctx, targets)
	if wrong := new(cli.UsageError); errors.As(err, &wrong) {
		return err
	}
	images := make([]string, len(questions))
	for i, q := range questions {
		images[i] = q.image
	}
	if err != nil {
		return o.Finish(o.out, columns, cli.AllFailed(workload.ImagesOf(targets), cli.StopCause(ctx, err)))
	}
	return o.Finish(o.out, columns, o.judge(ctx, questions, images))
}

func (o *verifyOptions) judge(ctx context.Context, questions []asked, images []string) []cli.Result {
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
	var cloud *connect.Cloud
	var decides *checker.Checker
	if ask {
		var err error
		if cloud, err = o.ConnectImages(ctx); err != nil {
			return cli.AllFailed(images, cli.StopCause(ctx, err))
		}
		decides = cloud.Checker()
	}
	done := o.Progress("asked about %d of %d images", len(images))
	return cli.ForEach(ctx, images, func(ctx context.Context, i int) cli.Result {
		defer done()
		q := questions[i]
		if settled[i] != nil {
			return o.show(images[i], q.policies, *settled[i])
		}
		ref, v, err := o.resolved(ctx, cloud, refs[i])
		for _, keys := range q.keys {
			if err != nil || v != nil && !v.Signed() {
				break // every list of keys has to be satisfied
			}
			var got verdict.Verdict
			got, err = keyring.Check(ctx, decides, ref, keys)
			v = &got
		}
		if err != nil {
			return cli.Result{Err: err, Rows: [][]string{{o.name(images[i]), "unknown", "error", "", "", "", "", "", "see the error"}}}
		}
		return o.show(ref.String(), q.policies, *v)
	})
}

// resolved gives a reference its digest. That there is no such image is a verdict.
func (o *verifyOptions) resolved(ctx context.Context, c *connect.Cloud, ref image.Reference) (image.Reference, *verdict.Verdict, error) {
	if ref.Digest() != "" {
		return ref, nil, nil
	}
	img, err := c.Registry.Image(ctx, ref)
	if errors.Is(err, registry.ErrNotFound) {
		return ref, &verdict.Verdict{Reason: verdict.ImageNotFound, Detail: "no such tag, or you may not read it"}, nil
	}
	if err != nil {
		return image.Reference{}, nil, err
	}
	ref, err = ref.WithDigest(img.Digest)
	return ref, nil, err
}

func (o *verifyOptions) show(name string, policies []string, v verdict.Verdict) cli.Result {
	r := cli.Result{Target: name, Value: judged{name, policies, v.Members()}, Denied: !v.Signed()}
	word, detail := "no", v.Detail
	if v.Signed() {
		word, r.Names = "yes", []string{name}
		detail = fmt.Sprintf("by key %s at %s", signature.Short(v.Key), v.SignedAt)
	}
	if ref, err := image.Parse(name); err == nil && v.Reason == verdict.NotCovered {
		r.Notes = []string{fmt.Sprintf("namespace %s is not your tenancy's; if you may use it, name its tenancy: --tenancy %s=ocid1.tenancy...", ref.Namespace(), ref.Namespace())}
	}
	r.Rows = [][]string{{o.name(name), word, string(v.Reason), v.Key, v.KeyVersion, v.Algorithm, v.SignedAt, strings.Join(policies, ","), detail}}
	return r
}

func (o *verifyOptions) name(image string) string {
	if o.out.Format == "wide" {
		return image
	}
	return cli.Brief(image)
}
