package cache_test

import (
	"context"
	"errors"
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

	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/fair"
)

var errDown = errors.New("the service is down")

func always(d time.Duration) func(string) time.Duration {
	return func(string) time.Duration { return d }
}

func TestOneFlightPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := cache.New(cache.Config[string, string]{
			Load: func(_ context.Context, key string) (string, error) {
				loads.Add(1)
				time.Sleep(60 * time.Millisecond)
				return "value of " + key, nil
			},
			TTL: always(time.Minute),
		})
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if got, err := c.Get(t.Context(), "a"); got != "value of a" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
		wg.Wait()
		if got := loads.Load(); got != 1 {
			t.Errorf("a burst of 1000 made %d loads, want 1", got)
		}
	})
}

// TestBurstWhileLanding runs callers while flights land. It has no fake clock.
func TestBurstWhileLanding(t *testing.T) {
	const keys = 200
	var loads atomic.Int64
	c := cache.New(cache.Config[int, int]{
		Load: func(_ context.Context, key int) (int, error) {
			loads.Add(1)
			runtime.Gosched()
			return key * 2, nil
		},
		TTL: func(int) time.Duration { return time.Hour },
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for key := range keys {
				if got, err := c.Get(t.Context(), key); got != key*2 || err != nil {
					t.Errorf("key %d: got %d, %v", key, got, err)
				}
			}
		})
	}
	wg.Wait()
	if got := loads.Load(); got != keys {
		t.Errorf("%d loads of %d keys", got, keys)
	}
}

func TestHowLongAValueIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := cache.New(cache.Config[string, int]{
			Load: func(context.Context, string) (int, error) {
				n++
				if n == 1 {
					time.Sleep(2 * time.Second) // the value's age counts from here
				}
				return n, nil
			},
			TTL:    func(int) time.Duration { return 40 * time.Second },
			Random: func() float64 { return 0.9 },
		})
		get := func(want int) {
			t.Helper()
			if got, err := c.Get(t.Context(), "a"); got != want || err != nil {
				t.Errorf("got %d, %v, want %d", got, err, want)
			}
			synctest.Wait()
		}
		get(1)
		time.Sleep(26 * time.Second) // 28 s after the load began
		get(1)
		if n != 1 {
			t.Errorf("refreshed too early")
		}
		time.Sleep(time.Second)
		get(1) // this caller causes the refresh and does not wait for it
		get(2)
		time.Sleep(40 * time.Second) // without a caller in between
		get(3)
	})
}

func TestAgeCountsFromTheStartOfTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loads := 0
		c := cache.New(cache.Config[string, string]{
			Load: func(context.Context, string) (string, error) {
				loads++
				time.Sleep(10 * time.Second)
				return "evidence", nil
			},
			TTL: always(12 * time.Second),
		})
		began := time.Now()
		if _, err := c.Get(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if _, err := c.Get(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if age := time.Since(began); loads != 2 || age != 22*time.Second {
			t.Errorf("after %v: %d loads, want a second one, and a caller that waits for it", age, loads)
		}
	})
}

// A loaded value may be older than its load. A value that claims to be younger
// counts as old as its load.
func TestAgeThatAValueTells(t *testing.T) {
	for name, tt := range map[string]struct {
		before, want time.Duration // the age before the load, and how long after the load the value is served
	}{
		"older":           {4 * time.Second, 6 * time.Second},
		"as old":          {0, 10 * time.Second},
		"from the future": {-time.Hour, 10 * time.Second},
		"too old":         {10 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				c := cache.New(cache.Config[string, time.Time]{
					Load: func(context.Context, string) (time.Time, error) {
						if time.Now().After(began) {
							return time.Time{}, errDown
						}
						return began.Add(-tt.before), nil
					},
					TTL:  func(time.Time) time.Duration { return 10 * time.Second },
					AsOf: func(at time.Time) time.Time { return at },
				})
				if _, err := c.Get(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				if tt.want > 0 {
					time.Sleep(tt.want - 1)
					if _, ok := c.Peek(t.Context(), "a"); !ok {
						t.Error("dropped too early")
					}
					time.Sleep(time.Nanosecond)
				}
				if _, ok := c.Peek(t.Context(), "a"); ok {
					t.Error("served for too long")
				}
			})
		})
	}
}

func TestErrorsAreNotCached(t *testing.T) {
	loads := 0
	c := cache.New(cache.Config[string, string]{
		Load: func(context.Context, string) (string, error) {
			loads++
			if loads == 1 {
				return "a value with an error", errDown
			}
			return "good", nil
		},
		TTL: always(time.Hour),
	})
	if _, err := c.Get(t.Context(), "a"); !errors.Is(err, errDown) {
		t.Errorf("first: %v", err)
	}
	if got, err := c.Get(t.Context(), "a"); got != "good" || err != nil {
		t.Errorf("second: %q, %v", got, err)
	}
}

func TestAFailedRefreshExtendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loads := 0
		c := cache.New(cache.Config[string, string]{
			Load: func(context.Context, string) (string, error) {
				loads++
				if loads > 1 {
					return "", errDown
				}
				return "old", nil
			},
			TTL: always(40 * time.Second),
		})
		served := 0
		began := time.Now()
		for {
			got, err := c.Get(t.Context(), "a")
			if err != nil {
				if !errors.Is(err, errDown) {
					t.Fatal(err)
				}
				break
			}
			if got != "old" {
				t.Fatalf("got %q", got)
			}
			served++
			time.Sleep(10 * time.Millisecond)
		}
		if age := time.Since(began); age != 40*time.Second {
			t.Errorf("served until %v, want 40s", age)
		}
		// After three quarters of the TTL there were 1000 callers. A service in
		// trouble must not hear from each of them.
		if loads < 3 || loads > 12 {
			t.Errorf("%d loads for %d callers, want a few", loads, served)
		}
	})
}

func TestACallerLeavesAndTheLoadGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type who struct{}
		loads := 0
		c := cache.New(cache.Config[string, string]{
			Load: func(ctx context.Context, _ string) (string, error) {
				loads++
				select {
				case <-time.After(3 * time.Second):
					return fmt.Sprint("for ", ctx.Value(who{})), nil
				case <-ctx.Done():
					return "", context.Cause(ctx)
				}
			},
			TTL: always(time.Minute),
		})
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), who{}, "the first"), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := c.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("the caller left after %v", took)
		}
		c.Wait()
		if got, err := c.Get(t.Context(), "a"); got != "for the first" || err != nil || loads != 1 {
			t.Errorf("got %q, %v after %d loads", got, err, loads)
		}
	})
}

func TestALoadThatHangsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New(cache.Config[string, string]{
			Load: func(ctx context.Context, _ string) (string, error) {
				<-ctx.Done()
				return "", context.Cause(ctx)
			},
			TTL:     always(time.Minute),
			Timeout: 5 * time.Second,
		})
		_, err := c.Get(context.WithoutCancel(t.Context()), "a")
		if !errors.Is(err, cache.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestLoadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		c := cache.New(cache.Config[int, int]{
			Load: func(_ context.Context, key int) (int, error) {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				time.Sleep(time.Second)
				return key, nil
			},
			TTL:      func(int) time.Duration { return time.Hour },
			MaxLoads: 4, JoinWithin: 2 * time.Second,
		})
		var wg sync.WaitGroup
		var late atomic.Int64
		for key := range 20 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
				defer cancel()
				if _, err := c.Get(ctx, key); err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					late.Add(1)
				}
			})
		}
		wg.Wait()
		if got := most.Load(); got != 4 {
			t.Errorf("%d loads at once, want 4", got)
		}
		// 4 loads end after 1 s and 4 after 2 s. 4 more have started. The others
		// never start.
		if got := late.Load(); got != 12 {
			t.Errorf("%d callers left without an answer, want 12", got)
		}
		c.Wait()
		if got := c.Len(); got != 12 {
			t.Errorf("%d values kept, want 12", got)
		}
	})
}

func TestRefreshesLeaveSlotsForWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := false
		c := cache.New(cache.Config[int, int]{
			Load: func(_ context.Context, key int) (int, error) {
				if slow && key < 100 {
					time.Sleep(9 * time.Second)
				}
				return key, nil
			},
			TTL:      func(int) time.Duration { return 40 * time.Second },
			MaxLoads: 4,
		})
		for key := range 8 {
			if _, err := c.Get(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(30 * time.Second)
		slow = true
		for key := range 8 {
			if _, err := c.Get(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if _, err := c.Get(t.Context(), 100); err != nil || time.Since(began) != 0 {
			t.Errorf("a new key waited %v behind refreshes: %v", time.Since(began), err)
		}
		c.Wait()
	})
}

func TestEntriesAreBounded(t *testing.T) {
	c := cache.New(cache.Config[int, [64]byte]{
		Load:       func(context.Context, int) (v [64]byte, err error) { return v, nil },
		TTL:        func([64]byte) time.Duration { return time.Hour },
		MaxEntries: 100,
	})
	for key := range 50_000 {
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	// The store evicts in the background, so it may exceed the limit for a moment.
	if got := c.Len(); got > 1000 {
		t.Errorf("%d entries, want about 100", got)
	}
}

func TestDiscard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loads := 0
		c := cache.New(cache.Config[string, int]{
			Load: func(context.Context, string) (int, error) { loads++; return loads, nil },
			TTL:  func(int) time.Duration { return time.Hour },
		})
		get := func(want int) {
			t.Helper()
			if got, err := c.Get(t.Context(), "a"); got != want || err != nil {
				t.Errorf("got %d, %v; want %d", got, err, want)
			}
		}
		get(1)
		c.Discard("a", func(int) bool { return false })
		get(1)
		c.Discard("a", func(n int) bool { return n == 1 })
		get(2)
		c.Discard("a", func(n int) bool { return n == 1 }) // a late caller that saw the first value
		get(2)
		c.Discard("b", func(int) bool { t.Error("asked about a key that is not cached"); return true })
	})
}

// A service hangs and recovers. The first caller after that gets an answer. An
// earlier load fails or is cached, and it delays no caller.
func TestAHungLoadDelaysNoCaller(t *testing.T) {
	for name, test := range map[string]struct {
		first time.Duration // the duration of the first load
		want  int           // the last value
	}{
		"it never answers":                  {time.Hour, 2},
		"it answers late":                   {3 * time.Second, 2}, // an older answer replaces no newer one
		"it answers before the next caller": {1500 * time.Millisecond, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var loads atomic.Int64
				c := cache.New(cache.Config[string, int]{
					Load: func(ctx context.Context, _ string) (int, error) {
						n, takes := int(loads.Add(1)), time.Millisecond
						if n == 1 {
							takes = test.first
						}
						select {
						case <-time.After(takes):
							return n, nil
						case <-ctx.Done():
							return 0, context.Cause(ctx)
						}
					},
					TTL: func(int) time.Duration { return time.Hour },
				})
				ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
				defer cancel()
				if _, err := c.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v while the service hangs", err)
				}
				if test.want == 1 {
					time.Sleep(test.first)
				}
				began := time.Now()
				if got, err := c.Get(t.Context(), "a"); got != test.want || err != nil || time.Since(began) > time.Millisecond {
					t.Errorf("got %d, %v after %s", got, err, time.Since(began))
				}
				c.Wait()
				if got, err := c.Get(t.Context(), "a"); got != test.want || err != nil || int(loads.Load()) != test.want {
					t.Errorf("in the end: %d, %v after %d loads", got, err, loads.Load())
				}
			})
		})
	}
}

func TestATTLOfZeroCachesNothing(t *testing.T) {
	loads := 0
	c := cache.New(cache.Config[string, int]{
		Load: func(context.Context, string) (int, error) { loads++; return loads, nil },
		TTL:  func(int) time.Duration { return 0 },
	})
	for want := 1; want <= 3; want++ {
		if got, err := c.Get(t.Context(), "a"); got != want || err != nil {
			t.Errorf("got %d, %v, want %d", got, err, want)
		}
	}
}

func TestAPanicIsAnErrorForItsWaiters(t *testing.T) {
	text := func(string) time.Duration { return time.Hour }
	for name, cfg := range map[string]cache.Config[string, string]{
		"Load": {Load: func(context.Context, string) (string, error) { panic("boom") }, TTL: text},
		"TTL":  {Load: func(context.Context, string) (string, error) { return "", nil }, TTL: func(string) time.Duration { panic("boom") }},
		"AsOf": {Load: func(context.Context, string) (string, error) { return "", nil }, TTL: text, AsOf: func(string) time.Time { panic("boom") }},
	} {
		t.Run(name, func(t *testing.T) {
			var told []*contain.PanicError
			cfg.Panicked = func(p *contain.PanicError) { told = append(told, p) }
			c := cache.New(cfg)
			_, err := c.Get(t.Context(), "a")
			var p *contain.PanicError
			if !errors.As(err, &p) || p.Value != "boom" || !strings.Contains(string(p.Stack), "cache_test.go") {
				t.Errorf("got %v", err)
			}
			if text := err.Error(); strings.Contains(text, "cache_test.go") || strings.Contains(text, "boom") {
				t.Errorf("the text shows the stack or the value: %v", err)
			}
			if len(told) != 1 || told[0] != p {
				t.Errorf("told of %v", told)
			}
			// Only that load failed, and the cache has nothing from it.
			c.Wait()
			if _, ok := c.Peek(t.Context(), "a"); ok || c.Stats().UnderWay != 0 {
				t.Errorf("something is left: %+v", c.Stats())
			}
		})
	}
}

// A panic that passes through several waiting loads is reported once.
func TestAPanicIsReportedOnce(t *testing.T) {
	told := 0
	panicked := func(*contain.PanicError) { told++ }
	keys := cache.New(cache.Config[string, string]{
		Load: func(context.Context, string) (string, error) { panic("boom") }, TTL: always(time.Hour), Panicked: panicked,
	})
	images := cache.New(cache.Config[string, string]{
		Load: func(ctx context.Context, _ string) (string, error) { return keys.Get(ctx, "key") }, TTL: always(time.Hour), Panicked: panicked,
	})
	if _, err := images.Get(t.Context(), "image"); err == nil || told != 1 {
		t.Errorf("%v, told %d times", err, told)
	}
}

func TestALoadThatExitsItsGoroutine(t *testing.T) {
	c := cache.New(cache.Config[string, string]{
		Load: func(context.Context, string) (string, error) { runtime.Goexit(); return "", nil },
		TTL:  always(time.Hour),
	})
	if _, err := c.Get(t.Context(), "a"); err == nil {
		t.Error("no error")
	}
}

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New(cache.Config[string, string]{
			Load: func(_ context.Context, key string) (string, error) {
				time.Sleep(time.Second)
				return key, nil
			},
			TTL: func(v string) time.Duration { return map[string]time.Duration{"a": time.Minute, "b": time.Hour}[v] },
		})
		expect := func(want cache.Stats) {
			t.Helper()
			synctest.Wait()
			if got := c.Stats(); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		expect(cache.Stats{})
		if _, ok := c.Peek(t.Context(), "a"); ok {
			t.Error("a value before its load")
		}
		go c.Get(t.Context(), "a") //nolint:errcheck // only counted
		expect(cache.Stats{Misses: 1, UnderWay: 1})
		time.Sleep(2 * time.Second)
		if v, ok := c.Peek(t.Context(), "a"); v != "a" || !ok {
			t.Errorf("got %q, %t", v, ok)
		}
		expect(cache.Stats{Entries: 1, Hits: 1, Misses: 1})
		if _, err := c.Get(t.Context(), "b"); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Minute)
		if got := slices.Collect(c.All()); !slices.Equal(got, []string{"b"}) {
			t.Errorf("after a has expired: %q", got)
		}
	})
}

func BenchmarkHit(b *testing.B) {
	c := cache.New(cache.Config[string, string]{
		Load: func(_ context.Context, key string) (string, error) { return key, nil },
		TTL:  always(time.Hour),
	})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(ctx, "a"); err != nil {
			b.Fatal(err)
		}
	}
}

// An outage leaves many hanging loads. After the outage no caller waits for them.
func TestHungLoadsTakeNoSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		c := cache.New(cache.Config[int, int]{
			Load: func(ctx context.Context, key int) (int, error) {
				if well.Load() {
					return key, nil
				}
				<-ctx.Done()
				return 0, context.Cause(ctx)
			},
			TTL:      func(int) time.Duration { return time.Hour },
			MaxLoads: 4,
		})
		get := func(key int) error {
			ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
			defer cancel()
			_, err := c.Get(ctx, key)
			return err
		}
		var wg sync.WaitGroup
		for key := range 20 {
			wg.Go(func() {
				if err := get(key); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v while the service hangs", err)
				}
			})
		}
		wg.Wait()
		well.Store(true)
		for key := range 20 {
			if err := get(100 + key); err != nil {
				t.Errorf("after it: %v", err)
			}
		}
		c.Wait()
	})
}

// A caller that gives up before a load ends gets the errors of the load so far. They
// include errors of work that the load waits for, even if another caller started it.
func TestReportProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusal := errors.New("429 (opc-request-id abc)")
		keys := cache.New(cache.Config[string, string]{
			Load: func(ctx context.Context, _ string) (string, error) {
				time.Sleep(100 * time.Millisecond)
				cache.ReportProgress(ctx, errors.New("an older one"))
				cache.ReportProgress(ctx, refusal)
				<-ctx.Done()
				return "", context.Cause(ctx)
			},
			TTL: always(time.Hour),
		})
		images := cache.New(cache.Config[string, string]{
			Load: func(ctx context.Context, _ string) (string, error) { return keys.Get(ctx, "key") },
			TTL:  always(time.Hour),
		})
		ask := func(image string, patience time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := images.Get(ctx, image)
			return err
		}
		var wg sync.WaitGroup
		for _, image := range []string{"began the load of the key", "joined it", "joined it"} {
			wg.Go(func() {
				err := ask(image, 500*time.Millisecond)
				if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, refusal) ||
					err.Error() != "429 (opc-request-id abc); context deadline exceeded" {
					t.Errorf("%s: %v", image, err)
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		if err := ask("left before", time.Millisecond); err == nil || err.Error() != "context deadline exceeded" {
			t.Errorf("left before there was progress: %v", err)
		}
		time.Sleep(200 * time.Millisecond)
		if err := ask("came after", 100*time.Millisecond); err == nil || !strings.HasPrefix(err.Error(), "429") {
			t.Errorf("came after: %v", err)
		}
		wg.Wait()
		images.Wait()
		keys.Wait()
		cache.ReportProgress(t.Context(), refusal) // outside a load there is no receiver
	})
}

// TestSlotsAreSharedByRequest has one request with many keys, and small requests.
// The first load of each small request starts at once.
func TestSlotsAreSharedByRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		c := cache.New(cache.Config[int, int]{
			Load: func(_ context.Context, key int) (int, error) {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				time.Sleep(100 * time.Millisecond)
				return key, nil
			},
			TTL:      func(int) time.Duration { return time.Hour },
			MaxLoads: 4,
		})
		var wg sync.WaitGroup
		large := fair.Request(t.Context())
		for key := range 40 {
			wg.Go(func() {
				if _, err := c.Get(large, key); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Millisecond)
		for key := range 10 {
			small := fair.Request(t.Context())
			for n := range 2 {
				wg.Go(func() {
					began := time.Now()
					if _, err := c.Get(small, 100+2*key+n); err != nil || time.Since(began) > 200*time.Millisecond {
						t.Errorf("the %dth of a small request: after %s, %v", n, time.Since(began), err)
					}
				})
			}
		}
		wg.Wait()
		c.Wait()
		if n := most.Load(); n != 4+10 {
			t.Errorf("%d loads at once, want 4, and one for each of the 10 other requests", n)
		}
	})
}

// TestAnAbandonedRequest leaves nothing in the queue, except what other callers wait
// for.
func TestAnAbandonedRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := cache.New(cache.Config[string, string]{
			Load: func(_ context.Context, key string) (string, error) {
				loads.Add(1)
				time.Sleep(time.Second)
				return key, nil
			},
			TTL:      always(time.Hour),
			MaxLoads: 1, JoinWithin: time.Minute,
		})
		ctx, cancel := context.WithCancel(fair.Request(t.Context()))
		var wg sync.WaitGroup
		for _, key := range []string{"a", "b", "c", "d"} {
			wg.Go(func() {
				if _, err := c.Get(ctx, key); !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", key, err)
				}
			})
			synctest.Wait()
		}
		other := fair.Request(t.Context())
		for _, key := range []string{"x", "c"} { // its first begins at once, its second is that of the other request
			wg.Go(func() {
				if _, err := c.Get(other, key); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		cancel()
		wg.Wait()
		c.Wait()
		if n := loads.Load(); n != 3 {
			t.Errorf("%d loads, want a, x and c", n)
		}
		if s := c.Stats(); s.UnderWay != 0 {
			t.Errorf("left behind: %+v", s)
		}
	})
}

// TestRefreshesSpread asks for many images in a sweep, as Gatekeeper's audit does,
// and again every ten seconds.
func TestRefreshesSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const images = 2000
		began := time.Now()
		var loads []time.Duration
		var mu sync.Mutex
		random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the test is repeatable
		c := cache.New(cache.Config[int, int]{
			Load: func(_ context.Context, key int) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				loads = append(loads, time.Since(began))
				return key, nil
			},
			TTL: func(int) time.Duration { return 10 * time.Minute },
			Random: func() float64 {
				mu.Lock()
				defer mu.Unlock()
				return random.Float64()
			},
		})
		sweep := func() {
			for key := range images {
				if _, err := c.Get(t.Context(), key); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
		for sweep(); time.Since(began) < 460*time.Second; sweep() {
			time.Sleep(10 * time.Second)
		}
		in := make(map[time.Duration]int)
		for _, at := range loads[images:] {
			in[at.Truncate(10*time.Second)]++
			if at < 5*time.Minute {
				t.Errorf("refreshed after %s, before half of its time", at)
			}
		}
		refreshed := 0
		for at, n := range in {
			refreshed += n
			if n > images/8 {
				t.Errorf("%d of %d refreshes at %s", n, images, at)
			}
		}
		if refreshed != images {
			t.Errorf("%d refreshes of %d entries by three quarters of their time", refreshed, images)
		}
	})
}

func TestWeight(t *testing.T) {
	c := cache.New(cache.Config[int, int]{
		Load:  func(_ context.Context, key int) (int, error) { return key, nil },
		TTL:   func(int) time.Duration { return time.Hour },
		Weigh: func(int, int) uint32 { return 1000 }, MaxWeight: 100_000,
	})
	for key := range 10_000 {
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Len(); got > 1000 {
		t.Errorf("%d entries, want about 100", got)
	}
}
