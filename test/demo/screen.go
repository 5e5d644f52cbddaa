package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// width is the number of columns of the short story.
const width = 80

// screen shows the short story: commands and their output, in at most 60 lines of 80
// columns.
type screen struct {
	*story
	meter *meter
}

// meter counts lines and measures the widest.
type meter struct {
	io.Writer
	lines, widest int
}

// colours matches the escape sequences that printer.paint puts around a text.
var colours = regexp.MustCompile("\x1b\\[[0-9]*m")

func (m *meter) Write(p []byte) (int, error) {
	for line := range strings.Lines(colours.ReplaceAllString(string(p), "")) {
		m.lines++
		m.widest = max(m.widest, utf8.RuneCountInString(strings.TrimRight(line, "\n")))
	}
	return m.Writer.Write(p)
}

func (t *screen) tell(ctx context.Context) error {
	t.meter = &meter{Writer: t.Writer}
	t.Writer = t.meter
	if _, err := t.findKeys(ctx); err != nil {
		return err
	}
	app, err := t.pinned(ctx, scanTest, "latest")
	if err != nil {
		return err
	}
	other, err := t.pinned(ctx, scanTest, "v1")
	if err != nil {
		return err
	}
	t.say("Images in OCI Registry: $APP, $OTHER, $LB, $NEW. Key in OCI Vault: image-key.")
	for _, scene := range []func(context.Context, string, string) error{
		t.signed, t.denied, t.moved, t.emergency, t.outage,
	} {
		if err := scene(ctx, app, other); err != nil {
			return fmt.Errorf("%s: %w", t.step, err)
		}
	}
	return nil
}

func (t *screen) signed(ctx context.Context, app, _ string) error {
	t.scene("Sign an image with a key of OCI Vault")
	t.typed("kubectl oke-sign sign $APP --key image-key")
	r, err := onTerminal(ctx, width-2, t.env, filepath.Join(t.bin, "kubectl-oke_sign"), "sign", app, "--key", "image-key")
	if err != nil {
		return err
	}
	t.print(r.stdout)
	t.rows = append(t.rows, row{t.step, "sign", "exit code 0, signed", code(r) + ", " + word(r.stdout, "signed")})
	t.scene("Admit only images that this key has signed")
	t.typed("kubectl apply -f policy.yaml        # OKESignedImages, keys: [image-key]")
	if err := t.cluster.enforce(ctx, "{keys: ["+t.imageKey.ID+"]}"); err != nil {
		return err
	}
	return t.run(ctx, app, "3/3", "kubectl create deployment app --image=$APP --replicas=3")
}

func (t *screen) denied(ctx context.Context, _, other string) error {
	t.scene("Nothing else runs: no unsigned image, and no tag, which may move")
	err := t.run(ctx, other, "0/3; denied: unsigned; warned: unsigned",
		"kubectl create deployment other --image=$OTHER --replicas=3")
	if err != nil {
		return err
	}
	return t.run(ctx, scanTest+":latest", "0/3; denied: no-digest by 2; warned: no-digest",
		"kubectl create deployment tag --image=${APP%@*}:latest --replicas=3")
}

func (t *screen) moved(ctx context.Context, app, _ string) error {
	t.scene("Somebody copies the signature of $APP to image $LB in the registry")
	record, err := t.recordOf(ctx, app)
	if err != nil {
		return err
	}
	if record.Image, err = t.pinned(ctx, nginxLB, "v1"); err != nil {
		return err
	}
	if err := t.cloud.Attach(ctx, record); err != nil {
		return err
	}
	return t.run(ctx, record.Image, "0/3; denied: wrong-image; warned: wrong-image", "kubectl create deployment moved --image=$LB --replicas=3")
}

func (t *screen) emergency(ctx context.Context, _, other string) error {
	t.scene("In an emergency, a Pod can use break-glass, and each use is reported")
	o, err := t.cluster.apply(ctx, deployment("hotfix", other, `
        oracle.image-policy.k8s.io/break-glass: "true"
        oke-sign.dev/break-glass-reason: INC-4711`))
	if err != nil {
		return err
	}
	t.typed("kubectl apply -f hotfix.yaml        # $OTHER, break-glass: \"true\"")
	t.came("under break-glass", "3/3; warned: in-use", o)
	return nil
}

func (t *screen) outage(ctx context.Context, _, _ string) error {
	t.scene("OCI is unreachable: an image without a cached verdict does not start")
	image, err := t.pinned(ctx, nginxLB, "latest")
	if err != nil {
		return err
	}
	fault := ocitest.Fault{Kind: ocitest.Status, Operation: "artifacts.*", Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable"}
	if err := t.cloud.SetFault(ctx, fault); err != nil {
		return err
	}
	err = t.run(ctx, image, "0/3; denied: no-answer; warned: no-answer", "kubectl create deployment new --image=$NEW --replicas=3")
	if err != nil {
		return err
	}
	return t.cloud.ClearFaults(ctx)
}

// end prints the summary, and fails if a result is unexpected.
func (t *screen) end(took time.Duration) error {
	for _, r := range t.rows {
		if !r.ok() {
			return fmt.Errorf("%s: %s: got %s, want %s", r.step, r.what, r.got, r.want)
		}
	}
	if t.meter.lines > 58 || t.meter.widest > width {
		return fmt.Errorf("the story has %d lines of up to %d columns, want 58 of %d", t.meter.lines, t.meter.widest, width)
	}
	t.say("\nAll %d results are as expected, in %s. Attacks, outages and scans: bin/demo --all", len(t.rows), took.Round(100*time.Millisecond))
	return nil
}

func (t *screen) scene(title string) {
	t.step = title
	t.say("\n%s", t.paint("1", title))
}

func (t *screen) typed(command string) { t.say("%s", t.paint("36", "$ "+command)) }

// run creates a Deployment of three Pods, as kubectl create deployment does.
func (t *screen) run(ctx context.Context, image, want, command string) error {
	t.typed(command)
	o, err := t.cluster.apply(ctx, deployment("app", image, ""))
	if err != nil {
		return err
	}
	t.came(command, want, o)
	return nil
}

// came shows the outcome of a Deployment, and records it.
func (t *screen) came(what, want string, o outcome) {
	pods := fmt.Sprintf("%d of %d Pods run", o.ready, o.replicas)
	if o.ready == o.replicas {
		t.say("  %s", t.paint("32", pods))
		t.print(strings.Join(o.warnings, "\n"))
	} else {
		t.say("  %s", t.paint("31", pods))
		denials := slices.Concat(o.denied, o.events)
		t.print(denials[len(denials)-1])
	}
	t.rows = append(t.rows, row{t.step, what, want, o.summary()})
}

// long matches digests and request IDs. Their first digits are enough on a screen.
var long = regexp.MustCompile(`(sha256:[0-9a-f]{12}|opc-request-id [0-9a-f]{12})[0-9a-fA-F/]{20,}`)

// print shows a text, wrapped between words to the screen's width.
func (t *screen) print(text string) {
	for line := range strings.Lines(long.ReplaceAllString(text, "$1…")) {
		line = strings.TrimRight(line, "\n")
		if utf8.RuneCountInString(line) <= width-2 {
			t.say("  %s", line)
			continue
		}
		indent, row := "  ", ""
		for word := range strings.FieldsSeq(line) {
			if row != "" && utf8.RuneCountInString(indent+row+" "+word) > width {
				t.say("%s%s", indent, row)
				indent, row = "    ", ""
			}
			row = strings.TrimPrefix(row+" "+word, " ")
		}
		t.say("%s%s", indent, row)
	}
}
