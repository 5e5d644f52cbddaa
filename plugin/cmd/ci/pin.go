package ci

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/otherregistry"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/image"
)

type pinOptions struct {
	*connect.Session
	files      []string
	recursive  bool
	check      bool
	diff       bool
	keepTags   bool
	registries string
	out        cli.Output
}

// NewPin makes the command.
func NewPin(s *connect.Session) *cobra.Command {
	o := &pinOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "pin (IMAGE|-f FILE|DIR|-)...",
		Short: "Replace tags by digests in manifests",
		Long: `Replace each tag in manifests by the digest that it points to now. Nothing else
in a file changes: comments, order and anchors stay, in YAML, JSON and the
images of a kustomization. -f - reads standard input and prints it pinned. For
images as arguments, the command prints the pinned references.

The command asks OCI Registry with your identity, and other registries with your
Docker credentials, as docker login stores them. --registries OCIRegistry leaves
images of other registries alone. The command does not write a file with a tag
that it cannot resolve. It rejects templates of Helm: pin the manifests that
they render, or the values by hand.

Exit code 0: done. 1: the command failed for some image. 3, with --check: an
image has no digest. --check alone asks nothing and writes nothing.`,
		Example: `  kubectl oke-sign pin -f deploy/

  # Show what would change, and keep the tag before the digest
  kubectl oke-sign pin -f deploy/ --diff --keep-tags

  # In a pipeline
  kubectl oke-sign pin --check -f deploy/
  helm template web | kubectl oke-sign pin -f - | kubectl apply -f -

  kubectl oke-sign pin ` + cli.ExampleTag + ` nginx:1.27`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(args, cmd.Flags().Changed("output")); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	flags := cmd.Flags()
	workload.BindFiles(flags, &o.files, "manifests and kustomizations")
	workload.BindRecursive(flags, &o.recursive)
	flags.BoolVar(&o.check, "check", false, "Only check that every image has a digest.")
	flags.BoolVar(&o.diff, "diff", false, "Print what would change, and write nothing.")
	flags.BoolVar(&o.keepTags, "keep-tags", false, "Write NAME:TAG@DIGEST. The tag is for people; nodes ignore it.")
	flags.StringVar(&o.registries, "registries", "All", "`WHOSE` images need a digest: All or OCIRegistry, as in OKEImageDigests.")
	o.out.Bind(flags)
	return cmd
}

func (o *pinOptions) validate(args []string, formatted bool) error {
	piped := slices.Contains(o.files, "-")
	switch {
	case len(args) == 0 && len(o.files) == 0:
		return cli.Usage("nothing to pin", "name manifests, such as kubectl oke-sign pin -f deploy/, or an image")
	case len(args) > 0 && len(o.files) > 0:
		return cli.Usage("images and -f exclude each other", "pin one after the other")
	case piped && len(o.files) > 1:
		return cli.Usage("-f - excludes other files", "pin them in a second command")
	case piped && formatted && !o.check:
		return cli.Usage("-o and -f - exclude each other: -f - prints manifests", "omit -o")
	case o.diff && (formatted || len(args) > 0):
		return cli.Usage("--diff is for files, and has no -o", "omit --diff or -o, and name files with -f")
	case o.registries != "All" && o.registries != "OCIRegistry":
		return cli.Usage(fmt.Sprintf("--registries %q is not known", o.registries), "use --registries All or --registries OCIRegistry")
	}
	return cmp.Or(o.ValidateFlags(), o.out.Validate())
}

// pinning is one input, a file or the images named as arguments, and what becomes of
// it.
type pinning struct {
	path   string
	text   []byte
	source *manifest.Source
	images []pinnedImage
	pinned []byte
	err    error
}

// pinnedImage is the result for an image at one place.
type pinnedImage struct {
	Image  string `json:"image"`
	Pinned string `json:"pinned,omitempty"` // the reference with its digest
	Result string `json:"result"`           // pinned, digest, tag, replaced, left, unwritten, failed
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Object string `json:"object,omitempty"`
	Place  string `json:"place,omitempty"`
	Detail string `json:"detail,omitempty"`
	Error  string `json:"error,omitempty"`

	ref   image.Reference         // set if OCI Registry must resolve it
	other otherregistry.Reference // set if another registry must resolve it
	err   error
}

// unresolved reports whether a registry must still resolve the tag.
func (p pinnedImage) unresolved() bool {
	return p.ref != image.Reference{} || p.other != otherregistry.Reference{}
}

// isOther reports whether the image is of another registry.
func (p pinnedImage) isOther() bool { return image.Classify(p.Image) == image.Other }

func (o *pinOptions) run(ctx context.Context, args []string) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	work, err := o.read(ctx, args)
	if err != nil {
		return o.Finish(o.out, pinColumns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	digests := make(map[string]string)
	if !o.check || o.diff {
		digests = o.resolve(ctx, work)
	}
	for i := range work {
		o.pin(&work[i], digests)
	}
	return o.show(ctx, work)
}

// read reads all files. A directory may have files without manifests.
func (o *pinOptions) read(ctx context.Context, args []string) ([]pinning, error) {
	var work []pinning
	for _, arg := range args {
		work = append(work, pinning{images: []pinnedImage{o.classified(pinnedImage{Image: arg})}})
	}
	for _, path := range o.files {
		files, found := []string{path}, false
		if info, err := os.Stat(path); path != "-" && err == nil && info.IsDir() {
			found = true
			if files, err = workload.ManifestsBelow(path, o.recursive, "Kustomization"); err != nil {
				return nil, err
			}
		}
		for _, file := range files {
			w := pinning{path: file}
			if w.text, w.err = cli.ReadInput(ctx, o.Streams.In, file); ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if w.err == nil {
				w.source, w.err = manifest.Read(file, w.text)
			}
			switch {
			case found && errors.Is(w.err, manifest.ErrNoObject) && !errors.Is(w.err, manifest.ErrTemplate):
				o.Remark("%s left: %v", file, w.err)
				continue
			case errors.Is(w.err, manifest.ErrTemplate):
				w.err = &cli.HintedError{What: w.err, Hint: "pin what it renders, with helm template CHART | kubectl oke-sign pin -f -, or the values"}
			case errors.Is(w.err, manifest.ErrNoObject):
				w.err = &cli.HintedError{What: w.err, Hint: "name manifests, or what a chart renders"}
			}
			work = append(work, w)
		}
	}
	objects := len(args)
	for i := range work {
		w := &work[i]
		if w.source == nil {
			objects++ // its error is reported with the file
			continue
		}
		objects += w.source.Objects
		for _, n := range w.source.Images {
			p := o.classified(pinnedImage{Image: n.Ref, File: w.path, Line: n.Line, Object: n.Object, Place: n.Place()})
			if n.Elsewhere {
				p.leave("left", "the manifests name its tag, not this file")
			}
			w.images = append(w.images, p)
		}
	}
	if objects == 0 { // for example, the renderer in front of the pipe failed
		return nil, &cli.HintedError{What: errors.New("no object to pin"), Hint: "name manifests with -f; if a program renders them, check that it did not fail"}
	}
	settle(work)
	return work, nil
}

// leave records that the command does not change the image here.
func (p *pinnedImage) leave(result, detail string) {
	p.Result, p.Detail, p.ref, p.other = result, detail, image.Reference{}, otherregistry.Reference{}
}

// classified returns what pin can do about an image, before it asks a registry.
func (o *pinOptions) classified(p pinnedImage) pinnedImage {
	ref, err := image.Parse(p.Image)
	_, digest, _ := strings.Cut(p.Image, "@")
	switch {
	case errors.Is(err, image.ErrAmbiguous):
		p.Result, p.Detail = "tag", err.Error()
	case image.ValidDigest(digest):
		p.Result, p.Pinned = "digest", p.Image
	case err == nil:
		p.Result, p.ref = "tag", ref
	case o.registries == "OCIRegistry":
		p.Result, p.Detail = "left", "an image of another registry"
	default:
		p.Result = "tag"
		if p.other, err = otherregistry.Parse(p.Image); err != nil {
			p.Detail = err.Error()
		}
	}
	return p
}

// settle finds the names that a kustomization replaces.
func settle(work []pinning) {
	said := make(map[string]string)
	for _, w := range work {
		if w.source == nil {
			continue
		}
		for _, n := range w.source.Images {
			if n.Field == "images" && !n.Elsewhere {
				said[n.Name] = w.path
			}
		}
	}
	for _, w := range work {
		for i, p := range w.images {
			name := p.Image
			if tag := strings.LastIndexByte(name, ':'); tag > strings.LastIndexByte(name, '/') {
				name = name[:tag]
			}
			replaces := w.source != nil && w.source.Images[i].Field == "images"
			if file := said[name]; file != "" && !replaces && p.isOther() && p.Result != "digest" {
				w.images[i].leave("replaced", "by "+file)
			}
		}
	}
}

// resolve asks for the digest of each tag once. It notes a failure at every image that
// needs the tag.
func (o *pinOptions) resolve(ctx context.Context, work []pinning) map[string]string {
	wanted := make(map[string]pinnedImage)
	var names []string
	for _, w := range work {
		for _, p := range w.images {
			if _, seen := wanted[p.Image]; !seen && p.unresolved() {
				wanted[p.Image] = p
				names = append(names, p.Image)
			}
		}
	}
	look := o.resolver(ctx, wanted)
	done := o.Progress("resolved %d of %d tags", len(names))
	digests, failed := make(map[string]string), make(map[string]error)
	found := make([]string, len(names))
	for i, r := range cli.ForEach(ctx, names, func(ctx context.Context, i int) cli.Result {
		defer done()
		var err error
		found[i], err = look(ctx, wanted[names[i]])
		return cli.Result{Err: err}
	}) {
		if r.Err != nil {
			failed[names[i]] = r.Err
		} else {
			digests[names[i]] = found[i]
		}
	}
	for _, w := range work {
		for i, p := range w.images {
			if err := failed[p.Image]; err != nil && p.unresolved() {
				w.images[i].Result, w.images[i].err = "failed", err
			}
		}
	}
	return digests
}

// resolver returns the function that asks the registry of an image. It signs in to OCI
// only if an image is there.
func (o *pinOptions) resolver(ctx context.Context, wanted map[string]pinnedImage) func(context.Context, pinnedImage) (string, error) {
	others := otherregistry.New()
	var cloud *connect.Cloud
	var err error
	for _, p := range wanted {
		if p.ref == (image.Reference{}) {
			continue
		}
		if cloud, err = o.ConnectImages(ctx); err != nil {
			err = cli.SharedError(cli.StopCause(ctx, err))
		}
		break
	}
	return func(ctx context.Context, p pinnedImage) (string, error) {
		if p.ref == (image.Reference{}) {
			return others.Digest(ctx, p.other)
		}
		if err != nil {
			return "", err
		}
		img, _, err := cloud.Pinned(ctx, p.ref.Effective())
		return img.Digest, err
	}
}

// pin makes the new text of a file and writes it, unless one of its images failed.
func (o *pinOptions) pin(w *pinning, digests map[string]string) {
	if w.err != nil || o.check && !o.diff {
		return
	}
	failed := slices.ContainsFunc(w.images, func(p pinnedImage) bool { return p.err != nil })
	if w.source != nil && !failed {
		if w.pinned, w.err = w.source.Pin(digests, o.keepTags); w.err != nil {
			w.err = &cli.HintedError{What: w.err, Hint: "the file was left as it is"}
		}
		if w.err == nil && w.path != "-" && !o.diff && !bytes.Equal(w.text, w.pinned) {
			w.err = replaceFile(w.path, w.text, w.pinned)
		}
	}
	for i, p := range w.images {
		digest, ok := digests[p.Image]
		switch {
		case !ok || !p.unresolved():
		case failed || w.err != nil:
			w.images[i].Result, w.images[i].Detail = "unwritten", "another image of the file failed"
		default:
			w.images[i].Result, w.images[i].Pinned = "pinned", manifest.Pinned(p.Image, digest, o.keepTags)
		}
	}
}

// replaceFile replaces the text of a file atomically, and only if the file still has
// the old text. The file keeps its mode.
func replaceFile(path string, from, to []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".pin-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // after the rename it does not exist
	_, err = f.Write(to)
	if err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close()); err != nil {
		return err
	}
	now, err := os.ReadFile(path) //nolint:gosec // the user names it
	if err != nil {
		return err
	}
	if !bytes.Equal(now, from) {
		return &cli.HintedError{What: errors.New("somebody else changed the file in the meantime, so it was not changed"), Hint: "run the command again"}
	}
	return os.Rename(f.Name(), path)
}

var pinColumns = []cli.Column{{Name: "image"}, {Name: "result"}, {Name: "digest"}, {Name: "file"}, {Name: "object", Wide: true}, {Name: "place", Wide: true}, {Name: "detail"}}

func (o *pinOptions) show(ctx context.Context, work []pinning) error {
	var results []cli.Result
	tally := make(map[string]int)
	for _, w := range work {
		if w.err != nil {
			results = append(results, cli.Result{Target: w.path, Err: cli.StopCause(ctx, w.err)})
		}
		for _, p := range w.images {
			tally[p.Result]++
			results = append(results, o.result(p))
		}
	}
	failed := slices.ContainsFunc(results, func(r cli.Result) bool { return r.Err != nil || r.PartialErr != nil })
	var err error
	if text := o.text(work); text == nil {
		err = o.Finish(o.out, pinColumns, results)
	} else {
		if !failed || o.diff {
			_, err = o.Streams.Out.Write(text)
		}
		err = cmp.Or(err, cli.Outcome(results))
		o.ComplainAbout(results)
	}
	if len(o.files) > 0 {
		o.summarize(tally)
	}
	return err
}

// text returns what standard output gets instead of a list: a diff, or standard
// input with its images pinned.
func (o *pinOptions) text(work []pinning) []byte {
	if o.diff {
		text := []byte{}
		for _, w := range work {
			if w.pinned != nil {
				text = append(text, diff.Diff(w.path, w.text, w.path, w.pinned)...)
			}
		}
		return text
	}
	if len(work) == 1 && work[0].path == "-" && !o.check {
		return append([]byte{}, work[0].pinned...)
	}
	return nil
}

func (o *pinOptions) result(p pinnedImage) cli.Result {
	if p.err != nil {
		p.Error, p.Detail = cli.Clip(p.err.Error(), 1000), "see the error"
	}
	r := cli.Result{Target: p.Image, Value: p, PartialErr: p.err}
	if o.check {
		r.Denied = p.Result == "tag" || p.Result == "pinned"
	} else if p.Result == "tag" { // no registry can say its digest
		r.PartialErr = &cli.HintedError{What: errors.New(p.Detail), Hint: "write it as host/path:tag; for OCI Registry use one of its host names"}
	}
	if p.Pinned != "" {
		r.Names = []string{p.Pinned}
	}
	if (p.Result == "digest" || p.Result == "replaced") && o.out.Format != "wide" {
		return r
	}
	_, digest, _ := strings.Cut(p.Pinned, "@")
	file := p.File
	if p.Line > 0 {
		file = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if o.out.Format != "wide" && len(digest) > 19 {
		digest = digest[:19] + "…"
	}
	r.Rows = [][]string{{p.Image, p.Result, digest, file, p.Object, p.Place, p.Detail}}
	return r
}

func (o *pinOptions) summarize(tally map[string]int) {
	all := 0
	var parts []string
	for _, word := range []struct{ result, text string }{
		{"pinned", "pinned"}, {"digest", "with a digest already"}, {"tag", "without a digest"},
		{"replaced", "replaced by a kustomization"}, {"left", "left"}, {"unwritten", "not written"}, {"failed", "failed"},
	} {
		text := word.text
		if o.diff && word.result == "pinned" {
			text = "to pin"
		}
		if n := tally[word.result]; n > 0 {
			all += n
			parts = append(parts, fmt.Sprintf("%d %s", n, text))
		}
	}
	if all == 0 {
		o.Remark("no image is named there")
		return
	}
	o.Remark("%s: %s", cli.Count(all, "image"), strings.Join(parts, ", "))
}
