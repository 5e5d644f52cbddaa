package vulnreport_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/fair"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// fleet is an OCI that has scanned any image and found n problems in it.
func fleet(t *testing.T, n int, call func()) vulnreport.Config {
	t.Helper()
	region := parse(t, pinned).Region()
	return vulnreport.Config{
		Covers: func(image.Reference) bool { return true },
		Image: func(context.Context, image.Reference) (vulnreport.Image, error) {
			call()
			return vulnreport.Image{Tags: []vulnreport.Tag{{Name: "latest", Since: at(10)}}}, nil
		},
		Results: func(_ context.Context, ref image.Reference, _ vulnreport.Image, _ string) ([]vulnreport.Result, error) {
			call()
			r := result("ocid1.vsscontainerscanresult.oc1.iad."+strings.Repeat("a", 60), "latest", 11, 12)
			return []vulnreport.Result{r}, nil
		},
		Problems: func(_ context.Context, ref image.Reference, _ string) ([]vulnreport.Problem, image.Region, error) {
			call()
			problems := make([]vulnreport.Problem, n)
			for i := range problems {
				problems[i] = vulnreport.Problem{ID: fmt.Sprintf("CVE-2026-%s%03d", ref.Digest()[8+60:], i), Severity: vulnreport.Severities()[i%4]}
			}
			return problems, region, nil
		},
	}
}

func numbered(t *testing.T, n int) image.Reference {
	t.Helper()
	return parse(t, fmt.Sprintf("iad.ocir.io/ns/repo@sha256:%064x", n))
}

// TestASweepCostsItsCallsOnce asks for 20 000 images again and again, as
// Gatekeeper's audit does, but without a pause.
func TestASweepCostsItsCallsOnce(t *testing.T) {
	const images = 20_000
	var calls atomic.Int64
	now := time.Now()
	cfg := fleet(t, 100, func() { calls.Add(1) })
	cfg.Now = func() time.Time { return now }
	c := vulnreport.New(cfg)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for sweep := range 3 {
		for n := range images {
			r, err := c.Check(t.Context(), numbered(t, n))
			if err != nil || !r.Known || len(r.Problems) != 100 || r.Counts[vulnreport.Low] != 25 {
				t.Fatalf("image %d: %+v, %v", n, r, err)
			}
		}
		if want := int64(4 * images); calls.Load() != want {
			t.Fatalf("%d calls after sweep %d, want %d", calls.Load(), sweep+1, want)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / images; each > 3<<10 {
		t.Errorf("a report takes %d bytes", each)
	} else {
		t.Logf("a report of 100 problems takes %d bytes", each)
	}
	c.Wait()
}

// TestMemoryIsBounded uses reports of the largest size.
func TestMemoryIsBounded(t *testing.T) {
	cfg := fleet(t, 0, func() {})
	problems := make([]vulnreport.Problem, vulnreport.MaxProblems)
	for i := range problems {
		problems[i] = vulnreport.Problem{ID: fmt.Sprintf("%03d%s", i, strings.Repeat("あ", 61)), Severity: vulnreport.High}
	}
	region := parse(t, pinned).Region()
	cfg.Problems = func(context.Context, image.Reference, string) ([]vulnreport.Problem, image.Region, error) {
		return problems, region, nil
	}
	c := vulnreport.New(cfg)
	for n := range 9_000 { // 170 MB, if all were cached
		if _, err := c.Check(t.Context(), numbered(t, n)); err != nil {
			t.Fatal(err)
		}
	}
	if held := c.Stats().Entries; held > 8000 || held < 5000 {
		t.Errorf("%d reports of 19 kB are cached", held)
	}
	c.Wait()
}

// TestTheCacheLosesNothing compares a gathered report with the cached one.
func TestTheCacheLosesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the test is repeatable
	region := parse(t, pinned).Region()
	for range 200 {
		var found []vulnreport.Problem
		for range random.IntN(300) {
			id := fmt.Sprintf("CVE-%d", random.IntN(400))
			switch random.IntN(20) {
			case 0:
				id = "a\nb\r\x00\u2028"
			case 1:
				id = ""
			}
			found = append(found, vulnreport.Problem{ID: id, Severity: vulnreport.Severities()[random.IntN(4)]})
		}
		cfg := fleet(t, 0, func() {})
		cfg.Problems = func(context.Context, image.Reference, string) ([]vulnreport.Problem, image.Region, error) {
			return slices.Clone(found), region, nil
		}
		c := vulnreport.New(cfg)
		got, err := c.Check(t.Context(), parse(t, pinned))
		if err != nil {
			t.Fatal(err)
		}
		want := vulnreport.Summarize(result("ocid1.vsscontainerscanresult.oc1.iad."+strings.Repeat("a", 60), "latest", 11, 12), found)
		got.Age = 0
		if len(want.Problems) == 0 {
			want.Problems = got.Problems
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	}
}

// TestAnAuditLeavesRoom has an audit sweep over images that are not cached. It sends
// one request after another, and abandons each at its deadline. Meanwhile users
// start Pods with one new image. Each call to OCI takes 50 ms.
func TestAnAuditLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := fair.NewSemaphore(8) // the slots of the host
		cfg := fleet(t, 3, func() {})
		call := func(ctx context.Context) error {
			release, err := places.Acquire(ctx)
			if err == nil {
				time.Sleep(50 * time.Millisecond)
				release()
			}
			return err
		}
		inner := cfg
		cfg.Image = func(ctx context.Context, ref image.Reference) (vulnreport.Image, error) {
			if err := call(ctx); err != nil {
				return vulnreport.Image{}, err
			}
			return inner.Image(ctx, ref)
		}
		cfg.Results = func(ctx context.Context, ref image.Reference, img vulnreport.Image, tag string) ([]vulnreport.Result, error) {
			if err := call(ctx); err != nil {
				return nil, err
			}
			return inner.Results(ctx, ref, img, tag)
		}
		cfg.Problems = func(ctx context.Context, ref image.Reference, id string) ([]vulnreport.Problem, image.Region, error) {
			if err := call(ctx); err != nil {
				return nil, image.Region{}, err
			}
			return inner.Problems(ctx, ref, id)
		}
		c := vulnreport.New(cfg)
		ask := func(within time.Duration, images ...image.Reference) (answered int) {
			ctx, cancel := context.WithTimeout(fair.Request(t.Context()), within)
			defer cancel()
			var wg sync.WaitGroup
			var n atomic.Int64
			for _, ref := range images {
				wg.Go(func() {
					if _, err := c.Check(ctx, ref); err == nil {
						n.Add(1)
					}
				})
			}
			wg.Wait()
			return int(n.Load())
		}
		var stop atomic.Bool
		var audit sync.WaitGroup
		audit.Go(func() {
			for n := 0; !stop.Load(); n += 16 {
				var images []image.Reference
				for i := range 16 {
					images = append(images, numbered(t, n+i))
				}
				ask(300*time.Millisecond, images...)
			}
		})
		time.Sleep(3 * time.Second)
		for n := range 20 {
			if answered := ask(350*time.Millisecond, numbered(t, 1_000_000+n)); answered != 1 {
				t.Errorf("admission %d has no answer", n)
			}
			time.Sleep(83 * time.Millisecond)
		}
		stop.Store(true)
		audit.Wait()
		c.Wait()
	})
}
