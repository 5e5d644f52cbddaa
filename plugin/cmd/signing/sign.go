// Package signing has the commands about signatures: sign, verify and signatures.
package signing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/signature"
)

type signOptions struct {
	*connect.Session
	targets     workload.TargetFlags
	key         string
	version     string
	algorithm   string
	description string
	metadata    string
	resolve     bool
	skipOthers  bool
	force       bool
	dryRun      cli.DryRun
	out         cli.Output

	images       []string
	refs         []image.Reference
	versionID    signature.KeyVersionID
	anyAlgorithm bool // none was named: a signature by any counts as made before
	hasMetadata  bool
}

// NewSign makes the command.
func NewSign(s *connect.Session) *cobra.Command {
	o := &signOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "sign (IMAGE|TYPE/NAME|-f FILE)... [--key OCID|NAME]",
		Short: "Sign images with a key of OCI Vault",
		Long: `Sign images in OCI Registry with an RSA key of OCI Vault. Name the images, the
objects of the cluster that use them, or manifests.

Without --key, the command uses the default key that kubectl oke-sign keys use
has set for the kubeconfig context. Without a default key, it asks you if it
runs at a terminal.

The signed message is byte for byte that of Oracle's own command,
` + "`oci artifacts container image-signature sign-upload`" + `. The command checks all
images first, and signs none if it cannot sign one. It verifies each signature
before the upload. It skips images that the key has signed before, so you can
run it again after an interrupt.`,
		Example: `  kubectl oke-sign sign ` + cli.ExampleTag + ` \
    --resolve --key image-key

  # All images of a Deployment, after a look at what would be signed
  kubectl oke-sign sign deployment/web -n shop --dry-run=client

  # By the key's OCID, with a signed description and metadata
  kubectl oke-sign sign $IMAGE --key $KEY \
    --description "nightly build" --metadata '{"buildNumber":"123"}'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.anyAlgorithm = !cmd.Flags().Changed("algorithm")
			o.hasMetadata = cmd.Flags().Changed("metadata")
			if err := cli.NotEmpty(cmd, "key"); err != nil {
				return err
			}
			if err := o.complete(args); err != nil {
				return err
			}
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	flags := cmd.Flags()
	o.targets.Bind(flags, s.Kube)
	flags.StringVar(&o.key, "key", "", "Signing key: its `OCID`, or its name if no other key has the name.")
	flags.StringVar(&o.version, "key-version", "", "`OCID` of the key version. Default: the current version.")
	flags.StringVar(&o.algorithm, "algorithm", string(signature.SHA256), "Signature algorithm `NAME`: SHA_224_RSA_PKCS_PSS, SHA_256_…, SHA_384_… or SHA_512_….")
	flags.StringVar(&o.description, "description", "", "`TEXT` that is signed with the image.")
	flags.StringVar(&o.metadata, "metadata", "", "`JSON` that is signed with the image.")
	flags.BoolVar(&o.resolve, "resolve", false, "Sign the image that a tag points to now.")
	flags.BoolVar(&o.skipOthers, "skip-others", false, "Skip images of other registries in objects and manifests.")
	cli.BindDryRun(flags, &o.dryRun, "does the same: both look everything up in OCI")
	flags.BoolVar(&o.force, "force", false, "Sign images that the key has signed before again.")
	o.out.Bind(flags)
	return cmd
}

// complete reads the arguments. Everything about them that can be wrong is wrong
// use, and is found before OCI is asked for anything.
func (o *signOptions) complete(args []string) error {
	for _, arg := range args {
		if workload.IsObject(arg) || o.targets.IsType(arg) {
			continue
		}
		if _, err := o.parse(arg); err != nil {
			return cli.Usage(err.Error(), err.Hint)
		}
	}
	o.algorithm = strings.ToUpper(o.algorithm)
	if o.version != "" {
		id, err := signature.ParseKeyVersionID(o.version)
		if err != nil {
			return cli.Usage("--key-version: "+err.Error(), "omit it to sign with the key's current version")
		}
		o.versionID = id
	}
	return nil
}

// parse reads an image to sign. It returns a hinted error, because a wrong argument is
// wrong usage and a wrong image in a manifest is not.
func (o *signOptions) parse(s string) (image.Reference, *cli.HintedError) {
	ref, err := image.Parse(s)
	switch {
	case errors.Is(err, image.ErrNotOCIRegistry):
		return ref, &cli.HintedError{What: fmt.Errorf("%q is %w", s, err), Hint: "only images there can be signed: <region>.ocir.io/<namespace>/<repository>@sha256:<digest>; push it there first"}
	case err != nil:
		return ref, &cli.HintedError{What: fmt.Errorf("%q: %w", s, err), Hint: "write it as <region>.ocir.io/<namespace>/<repository>@sha256:<digest>"}
	case ref.Digest() == "" && !o.resolve:
		return ref, &cli.HintedError{What: fmt.Errorf("%q names no digest, and a tag can be moved between looking and signing", s),
			Hint: "add --resolve to sign what the tag points to now; kubectl oke-sign signatures IMAGE shows the digest"}
	}
	return ref, nil
}

// gather finds the images to sign. Of those that cannot be, it returns the
// results that say so.
func (o *signOptions) gather(ctx context.Context, args []string) (refused []cli.Result, err error) {
	found, err := o.targets.Find(ctx, o.Session, args)
	if err != nil {
		return nil, err
	}
	seen := make(map[image.Reference]bool)
	for _, t := range found {
		ref, wrong := o.parse(t.Image)
		switch {
		case wrong == nil && !seen[ref]:
			seen[ref] = true
			o.images, o.refs = append(o.images, t.Image), append(o.refs, ref)
		case wrong == nil:
		case o.skipOthers && len(t.Users) > 0 && errors.Is(wrong, image.ErrNotOCIRegistry):
			o.Remark("%s is of another registry, and passed over", t.Image)
		default:
			if len(t.Users) > 0 {
				wrong.What = fmt.Errorf("%s of %s: %w", t.Users[0].Place, t.Users[0].Name(), wrong.What)
			}
			if errors.Is(wrong, image.ErrNotOCIRegistry) {
				wrong.Hint = "push it to OCI Registry and name it there, or sign the others with --skip-others"
			}
			refused = append(refused, cli.Result{Target: t.Image, Err: cli.SharedError(wrong)})
		}
	}
	if len(refused) > 0 {
		for _, s := range o.images {
			refused = append(refused, cli.Result{Target: s, Err: cli.SharedError(errOtherRefused)})
		}
	}
	if len(found) > 0 && len(o.images)+len(refused) == 0 {
		return nil, errors.New("no image of OCI Registry found in what was named")
	}
	return refused, nil
}

func (o *signOptions) validate(args []string) error {
	if err := o.targets.Validate(args, "kubectl oke-sign sign "+cli.ExampleTag+" --resolve --key image-key"); err != nil {
		return err
	}
	switch _, err := signature.ParseAlgorithm(o.algorithm); {
	case err != nil:
		return cli.Usage("--algorithm: "+err.Error(), fmt.Sprintf("use %s, %s, %s or %s", signature.SHA224, signature.SHA256, signature.SHA384, signature.SHA512))
	case !utf8.ValidString(o.description):
		return cli.Usage("--description is not valid UTF-8", "write it in UTF-8")
	case !utf8.ValidString(o.metadata):
		return cli.Usage("--metadata is not valid UTF-8", "write it in UTF-8")
	case o.hasMetadata && !json.Valid([]byte(o.metadata)):
		return cli.Usage(fmt.Sprintf("--metadata is not JSON: %s", cli.Clip(o.metadata, 60)), `for instance --metadata '{"buildNumber":"123"}'`)
	}
	if strings.HasPrefix(o.key, "ocid1.") {
		if _, err := signature.ParseKeyID(o.key); err != nil {
			return cli.Usage("--key: "+err.Error(), keyring.HintOCIDs)
		}
	}
	return cmp.Or(o.ValidateFlags(), o.out.Validate())
}

// job is one image to be signed.
type job struct {
	ref     image.Reference // with its digest
	image   registry.Image
	message signature.Message
	before  *signature.Record // of this key, and it holds
}

var signColumns = []cli.Column{{Name: "image"}, {Name: "result"}, {Name: "key"}, {Name: "version", Wide: true},
	{Name: "algorithm", Wide: true}, {Name: "signature"}, {Name: "signed at", Wide: true}}

func (o *signOptions) run(ctx context.Context, args []string) error {
	if err := o.chooseKey(); err != nil {
		return err
	}
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	refused, err := o.gather(ctx, args)
	if err != nil {
		return o.Finish(o.out, signColumns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	if len(refused) > 0 {
		return o.Finish(o.out, signColumns, refused)
	}
	s, err := o.signer(ctx)
	var wrong *cli.UsageError
	if errors.As(err, &wrong) {
		return err
	}
	if err != nil {
		return o.Finish(o.out, signColumns, cli.AllFailed(o.images, cli.StopCause(ctx, err)))
	}

	jobs, results, err := o.prepare(ctx, s)
	if err != nil {
		return err
	}
	if jobs == nil {
		return o.Finish(o.out, signColumns, results)
	}
	if o.dryRun.On() {
		for i, j := range jobs {
			results = append(results, o.show(j, signature.Record{KeyID: s.key.ID.String(), KeyVersionID: s.version.String(), Algorithm: string(s.algorithm)}))
			if j.before != nil {
				results[i] = o.show(j, *j.before)
			}
		}
		return o.Finish(o.out, signColumns, results)
	}
	results = o.signAll(ctx, s, jobs)
	outcome := o.Finish(o.out, signColumns, results)
	o.tally(results)
	return outcome
}

var errOtherRefused = errors.New("not signed, because another image was refused")

// prepare looks all images up before one is signed. If one of them cannot be
// signed, it returns the results that say so, and no jobs.
func (o *signOptions) prepare(ctx context.Context, s *signer) ([]job, []cli.Result, error) {
	jobs := make([]job, len(o.refs))
	done := o.Progress("looked up %d of %d images", len(o.images))
	results := cli.ForEach(ctx, o.images, func(ctx context.Context, i int) cli.Result {
		defer done()
		var err error
		jobs[i], err = o.job(ctx, s, o.refs[i])
		return cli.Result{Err: err}
	})
	refused := false
	for _, r := range results {
		var wrong *cli.UsageError
		if errors.As(r.Err, &wrong) {
			return nil, nil, wrong
		}
		refused = refused || r.Err != nil
	}
	if !refused {
		return jobs, nil, nil
	}
	why := cli.SharedError(errOtherRefused)
	if ctx.Err() != nil {
		why = cli.SharedError(cli.StopCause(ctx, ctx.Err()))
	}
	for i := range results {
		if results[i].Err == nil {
			results[i].Err = why
		}
	}
	return nil, results, nil
}

func (o *signOptions) job(ctx context.Context, s *signer, ref image.Reference) (job, error) {
	img, ref, err := s.Pinned(ctx, ref)
	if err != nil {
		return job{}, err
	}
	j := job{ref: ref, image: img, message: signature.Message{
		Description:    o.description,
		ImageDigest:    ref.Digest(),
		KeyID:          s.key.ID.String(),
		KeyVersionID:   s.version.String(),
		Metadata:       o.metadata,
		Region:         s.Who.Region().ID(),
		RepositoryName: ref.Repository(),
		Algorithm:      string(s.algorithm),
	}}
	if n := len(j.message.Encode()); n > signature.MaxMessage {
		return job{}, cli.Usage(fmt.Sprintf("the message to sign for %s has %d bytes, and OCI Vault signs %d at most", ref, n, signature.MaxMessage),
			fmt.Sprintf("shorten --description or --metadata by %d bytes", n-signature.MaxMessage))
	}
	if o.force {
		return j, nil
	}
	j.before, err = o.before(ctx, s, ref)
	return j, err
}

// before finds a signature that this command would only repeat.
func (o *signOptions) before(ctx context.Context, s *signer, ref image.Reference) (*signature.Record, error) {
	records, _, err := s.Registry.Records(ctx, ref)
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		if rec.KeyID != s.key.ID.String() ||
			!o.versionID.IsZero() && rec.KeyVersionID != s.version.String() ||
			!o.anyAlgorithm && rec.Algorithm != string(s.algorithm) {
			continue
		}
		v, _, err := s.verifier.Verify(ctx, ref, rec)
		if err != nil {
			return nil, err
		}
		if v.Signed() {
			return &rec, nil
		}
	}
	return nil, nil
}

var errStopped = errors.New("not signed: stopped at the first failure")

// signAll signs what is not signed yet. After a failure nothing new is begun:
// what failed for one image, a permission or a key, fails for the others too.
func (o *signOptions) signAll(ctx context.Context, s *signer, jobs []job) []cli.Result {
	names := make([]string, len(jobs))
	first := make(map[image.Reference]int) // two tags, or two hosts, may name one image
	for i, j := range jobs {
		names[i] = j.ref.String()
		if _, again := first[j.ref.Identity()]; !again {
			first[j.ref.Identity()] = i
		}
	}
	made := make([]signature.Record, len(jobs))
	var stopped atomic.Bool
	done := o.Progress("signed %d of %d images", len(names))
	results := cli.ForEach(ctx, names, func(ctx context.Context, i int) cli.Result {
		defer done()
		j := jobs[i]
		switch {
		case j.before != nil:
			return o.show(j, *j.before)
		case first[j.ref.Identity()] != i:
			return cli.Result{} // filled in below
		case stopped.Load():
			return cli.Result{Err: cli.SharedError(errStopped)}
		}
		rec, err := s.sign(ctx, j)
		if err != nil {
			stopped.Store(true)
			return cli.Result{Err: err}
		}
		made[i] = rec
		return o.show(j, rec)
	})
	for i, j := range jobs {
		same := first[j.ref.Identity()]
		switch {
		case same == i || j.before != nil || results[i].Err != nil:
		case results[same].Err != nil:
			results[i].Err = results[same].Err
		default:
			j.before = &made[same]
			results[i] = o.show(j, made[same])
		}
	}
	return results
}

// tally says how far a batch came, if it did not come to its end.
func (o *signOptions) tally(results []cli.Result) {
	done := 0
	for _, r := range results {
		if r.Err == nil {
			done++
		}
	}
	if len(results) > 1 && done < len(results) {
		o.Remark("%d of %s signed; run the same command again for the rest", done, cli.Count(len(results), "image"))
	}
}

// signed is an image with the signature that it has now.
type signed struct {
	Image      string `json:"image"`
	Created    bool   `json:"created"`          // by this command; false: it was there
	DryRun     bool   `json:"dryRun,omitempty"` // it would be created
	Signature  string `json:"signature,omitempty"`
	Key        string `json:"key"`
	KeyVersion string `json:"keyVersion"`
	Algorithm  string `json:"algorithm"`
	SignedAt   string `json:"signedAt,omitempty"`
}

func (o *signOptions) show(j job, rec signature.Record) cli.Result {
	v := signed{
		Image: j.ref.String(), Created: j.before == nil && !o.dryRun.On(), DryRun: j.before == nil && o.dryRun.On(), Signature: rec.ID,
		Key: rec.KeyID, KeyVersion: rec.KeyVersionID, Algorithm: rec.Algorithm, SignedAt: cli.Timestamp(rec.TimeCreated),
	}
	word, name, id := "signed before", cli.Brief(v.Image), signature.Short(v.Signature)
	notes := []string{fmt.Sprintf("%s is signed by this key already, since %s; --force makes another signature", name, v.SignedAt)}
	switch {
	case v.Created:
		word, notes = "signed", nil
	case v.DryRun:
		word, notes = "would be signed", nil
	}
	if o.out.Format == "wide" {
		name, id = v.Image, v.Signature
	}
	return cli.Result{
		Target: v.Image, Value: v, Names: []string{v.Image}, Notes: notes,
		Rows: [][]string{{name, word, signature.Short(v.Key), signature.Short(v.KeyVersion), v.Algorithm, id, v.SignedAt}},
	}
}
