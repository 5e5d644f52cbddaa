package vulnreport_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

const pinned = "iad.ocir.io/ns/repo@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"

func parse(t *testing.T, s string) image.Reference {
	t.Helper()
	ref, err := image.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// oci is one image with one result, for the functions of a Config.
type oci struct {
	looks, lists, reads atomic.Int32
	tags                func(look int32) []vulnreport.Tag
	results             []vulnreport.Result
	problems            []vulnreport.Problem
	region              image.Region
	err                 error
}

func (o *oci) config() vulnreport.Config {
	return vulnreport.Config{
		Covers: func(ref image.Reference) bool { return ref.Namespace() == "ns" },
		Image: func(context.Context, image.Reference) (vulnreport.Image, error) {
			n := o.looks.Add(1)
			if o.tags == nil {
				return vulnreport.Image{}, vulnreport.ErrNoImage
			}
			return vulnreport.Image{Tags: o.tags(n), CompartmentID: "compartment"}, o.err
		},
		Results: func(_ context.Context, _ image.Reference, img vulnreport.Image, tag string) (found []vulnreport.Result, err error) {
			o.lists.Add(1)
			if img.CompartmentID != "compartment" {
				return nil, errors.New("another image")
			}
			for _, r := range o.results {
				if r.Tag == tag {
					found = append(found, r)
				}
			}
			return found, o.err
		},
		Problems: func(_ context.Context, _ image.Reference, id string) ([]vulnreport.Problem, image.Region, error) {
			o.reads.Add(1)
			if strings.HasPrefix(id, "elsewhere") {
				return nil, image.Region{}, nil
			}
			return o.problems, o.region, o.err
		},
	}
}

func always(tags ...vulnreport.Tag) func(int32) []vulnreport.Tag {
	return func(int32) []vulnreport.Tag { return tags }
}

func TestCheck(t *testing.T) {
	t.Parallel()
	latest := vulnreport.Tag{Name: "latest", Since: at(10)}
	iad := parse(t, pinned).Region()
	found := []vulnreport.Result{result("a", "latest", 11, 12)}
	many := func(prefix string, n int) (results []vulnreport.Result) {
		for i := range n {
			results = append(results, result(prefix+string(rune('a'+i)), "latest", 40-i, 41))
		}
		return append(results, found...)
	}
	for name, tt := range map[string]struct {
		image string
		oci   *oci
		want  string // "known", a reason, or an error
	}{
		"a scan":                             {pinned, &oci{tags: always(latest), results: found, region: iad}, "known"},
		"no digest":                          {"iad.ocir.io/ns/repo:latest", &oci{}, "no-digest"},
		"another's namespace":                {strings.Replace(pinned, "/ns/", "/other/", 1), &oci{}, "not-covered"},
		"no image":                           {pinned, &oci{}, "image-not-found"},
		"no tag":                             {pinned, &oci{tags: always()}, "no-tag"},
		"no scan":                            {pinned, &oci{tags: always(latest)}, "not-scanned"},
		"the tag moves during the calls":     {pinned, &oci{tags: func(n int32) []vulnreport.Tag { return []vulnreport.Tag{{Name: "latest", Since: at(9 + int(n))}} }, results: found, region: iad}, "older-push"},
		"a result of another region's image": {pinned, &oci{tags: always(latest), results: found, region: parse(t, strings.Replace(pinned, "iad", "phx", 1)).Region()}, "not-scanned"},
		"newer results of unknown origin":    {pinned, &oci{tags: always(latest), results: many("elsewhere", 4), region: iad}, "known"},
		"too many results of unknown origin": {pinned, &oci{tags: always(latest), results: many("elsewhere", 5), region: iad}, "none of the 5 newest results is about this registry"},
		"OCI fails":                          {pinned, &oci{tags: always(latest), err: errors.New("500")}, "500"},
	} {
		c := vulnreport.New(tt.oci.config())
		got, err := c.Check(t.Context(), parse(t, tt.image))
		text := string(got.Reason)
		switch {
		case err != nil:
			text = err.Error()
		case got.Known:
			text = "known"
		}
		if !strings.HasSuffix(text, tt.want) {
			t.Errorf("%s: %s, want %s", name, text, tt.want)
		}
		if _, ok := c.Known(t.Context(), parse(t, tt.image)); ok != (err == nil) {
			t.Errorf("%s: cached: %t", name, ok)
		}
	}
}

// TestTagsAreBounded: a user can give an image any number of tags.
func TestTagsAreBounded(t *testing.T) {
	t.Parallel()
	var tags []vulnreport.Tag
	for i := range 1000 {
		tags = append(tags, vulnreport.Tag{Name: strings.Repeat("x", i+1), Since: at(0).Add(time.Duration(i) * time.Second)})
	}
	o := &oci{tags: always(tags...)}
	got, err := vulnreport.New(o.config()).Check(t.Context(), parse(t, pinned))
	if n := o.lists.Load(); err != nil || got.Reason != vulnreport.NotScanned || n != 10 {
		t.Errorf("%v %v with %d lists", got, err, n)
	}
}

// TestCaching: simultaneous calls share one flight. A scan is cached longer than a
// missing scan. An error is not cached.
func TestCaching(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		iad := parse(t, pinned).Region()
		o := &oci{tags: always(vulnreport.Tag{Name: "latest", Since: at(10)})}
		c := vulnreport.New(o.config())
		ask := func() (vulnreport.Report, error) {
			return c.Check(t.Context(), parse(t, strings.Replace(pinned, "repo@", "repo:tag@", 1)))
		}
		for range 3 {
			if r, err := ask(); err != nil || r.Reason != vulnreport.NotScanned || r.RetryAfter != 30*time.Second {
				t.Fatal(r, err)
			}
		}
		if n := o.lists.Load(); n != 1 {
			t.Errorf("%d lists", n)
		}
		o.results, o.region = []vulnreport.Result{result("a", "latest", 11, 12)}, iad
		time.Sleep(31 * time.Second)
		if r, err := ask(); err != nil || !r.Known {
			t.Fatal(r, err)
		}
		o.err = errors.New("500")
		time.Sleep(9 * time.Minute)
		if r, err := ask(); err != nil || !r.Known || r.Age != 9*time.Minute {
			t.Fatal(r, err)
		}
		c.Wait() // the failed refresh
		time.Sleep(time.Minute)
		if r, err := ask(); err == nil {
			t.Fatal("an error extended an old scan:", r)
		}
		o.err = nil
		if r, err := ask(); err != nil || !r.Known || r.Age != 0 {
			t.Fatal(r, err)
		}
		c.Wait()
	})
}

// TestAPanicIsOneQuestionsError makes each function of a Checker's Config panic.
func TestAPanicIsOneQuestionsError(t *testing.T) {
	for name, breaks := range map[string]func(*vulnreport.Config){
		"the image": func(cfg *vulnreport.Config) {
			cfg.Image = func(context.Context, image.Reference) (vulnreport.Image, error) { panic("a secret") }
		},
		"the results": func(cfg *vulnreport.Config) {
			cfg.Results = func(context.Context, image.Reference, vulnreport.Image, string) ([]vulnreport.Result, error) {
				panic("a secret")
			}
		},
		"the problems": func(cfg *vulnreport.Config) {
			cfg.Problems = func(context.Context, image.Reference, string) ([]vulnreport.Problem, image.Region, error) {
				panic("a secret")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := &oci{tags: always(vulnreport.Tag{Name: "latest", Since: at(10)}), results: []vulnreport.Result{result("a", "latest", 11, 12)}}
			cfg := o.config()
			breaks(&cfg)
			told := 0
			cfg.Panicked = func(*contain.PanicError) { told++ }
			r, err := vulnreport.New(cfg).Check(t.Context(), parse(t, pinned))
			if _, ok := errors.AsType[*contain.PanicError](err); !ok || r.Known || strings.Contains(err.Error(), "secret") || told != 1 {
				t.Errorf("got %+v, %v, told %d times", r, err, told)
			}
		})
	}
}
