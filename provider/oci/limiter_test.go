package oci_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oke-sign/oke-sign/provider/oci"
)

func silent(context.Context, error) {}

// service is a host behind the limiter.
type service struct {
	*oci.Limiters
	sent   atomic.Int64
	answer func() error
}

// call sends one request, which takes 60 ms.
func (s *service) call(ctx context.Context) error {
	release, err := s.Acquire(ctx, silent)
	if err != nil {
		return err
	}
	defer release()
	s.sent.Add(1)
	time.Sleep(60 * time.Millisecond)
	err = s.answer()
	s.Heard(err)
	return err
}

// If OCI throttles one caller, all callers wait as long as OCI asks.
func TestRetryAfterIsHeededByAll(t *testing.T) {
	for name, test := range map[string]struct {
		refusal error
		want    time.Duration // time until the next request
	}{
		"429 with a time":    {oci.Refusal(http.StatusTooManyRequests, 700*time.Millisecond), 700 * time.Millisecond},
		"503 with a time":    {oci.Refusal(http.StatusServiceUnavailable, 700*time.Millisecond), 700 * time.Millisecond},
		"429 with an hour":   {oci.Refusal(http.StatusTooManyRequests, time.Hour), time.Second},
		"429 without":        {oci.Refusal(http.StatusTooManyRequests, 0), 0},
		"503 without":        {oci.Refusal(http.StatusServiceUnavailable, 0), 0},
		"404":                {oci.Refusal(http.StatusNotFound, 0), 0},
		"a broken line":      {errors.New("reset"), 0},
		"404 with some time": {oci.Refusal(http.StatusNotFound, time.Second), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := oci.NewLimiters(8)
				h.Heard(test.refusal)
				began := time.Now()
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						release, err := h.Acquire(t.Context(), silent)
						if err != nil {
							t.Error(err)
							return
						}
						if waited := time.Since(began); waited != test.want {
							t.Errorf("sent after %s, want %s", waited, test.want)
						}
						release()
					})
				}
				wg.Wait()
			})
		})
	}
}

// A host that throttles every caller gets few requests. Once it has recovered, it
// serves all callers soon, the newest first.
func TestThrottledByAll(t *testing.T) {
	for name, retryAfter := range map[string]time.Duration{"without a time": 0, "for a second": time.Second, "for a minute": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var well atomic.Bool
				s := &service{Limiters: oci.NewLimiters(32), answer: func() error {
					if well.Load() {
						return nil
					}
					return oci.Refusal(http.StatusTooManyRequests, retryAfter)
				}}
				ctx, stop := context.WithCancel(t.Context())
				var callers sync.WaitGroup
				for range 200 {
					callers.Go(func() {
						for ctx.Err() == nil && s.call(ctx) != nil {
							time.Sleep(50 * time.Millisecond)
						}
					})
				}
				time.Sleep(5 * time.Second) // it settles
				before := s.sent.Load()
				time.Sleep(25*time.Second + 123*time.Millisecond)
				if n := s.sent.Load() - before; n > 75 || n < 20 {
					t.Errorf("200 callers sent %d requests in 25 s to a host that throttled all of them", n)
				}
				well.Store(true)
				began := time.Now()
				if err := s.call(t.Context()); err != nil {
					// A request from before may have been answered afterwards.
					err = s.call(t.Context())
					if err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(began); took > 1200*time.Millisecond {
					t.Errorf("the first request after the recovery took %s", took)
				}
				callers.Wait()
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("all 200 were served after %s", took)
				}
				stop()
			})
		})
	}
}

// One throttled request among many answers delays only its own caller.
func TestSomeAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		s := &service{Limiters: oci.NewLimiters(32), answer: func() error {
			if n.Add(1)%20 == 0 {
				return oci.Refusal(http.StatusTooManyRequests, 0)
			}
			return nil
		}}
		var wg sync.WaitGroup
		for range 2000 { // 200 a second, each of which takes a slot for 60 ms
			wg.Go(func() {
				began := time.Now()
				_ = s.call(t.Context())
				if took := time.Since(began); took > 200*time.Millisecond {
					t.Errorf("a call took %s", took)
				}
			})
			time.Sleep(5 * time.Millisecond)
		}
		wg.Wait()
	})
}

func TestWaitersGetTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := oci.NewLimiters(1)
		h.Heard(oci.Refusal(http.StatusTooManyRequests, time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var told error
		_, err := h.Acquire(ctx, func(_ context.Context, err error) { told = err })
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "429 Code (opc-request-id id)") {
			t.Errorf("got %v", err)
		}
		if told == nil || !strings.Contains(told.Error(), "429 Code (opc-request-id id)") {
			t.Errorf("told %v", told)
		}
		// A caller that gave up holds no slot.
		release, err := h.Acquire(t.Context(), silent)
		if err != nil {
			t.Fatal(err)
		}
		release()
		release() // a second call has no effect
		h.Heard(nil)
		first, err := h.Acquire(t.Context(), silent)
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = h.Acquire(short, silent)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waited for one of the 1 calls that may run at once") {
			t.Errorf("two calls in one slot: %v", err)
		}
		first()
	})
}

// TestRetryAfter asks for waits that exceed every caller's time. The call fails at
// once and does not wait for its deadline.
func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"1":                              time.Second,
		"3600":                           time.Hour,
		"2147483647":                     time.Hour,
		"2147483648":                     time.Hour,
		"9999999999":                     time.Hour,
		"9223372036854775807":            time.Hour,
		"18446744073709551615":           time.Hour,
		"99999999999999999999999999":     time.Hour,
		"Sat, 28 Nov 2026 12:00:07 GMT":  7 * time.Second,
		"Sat, 28 Nov 2026 11:00:00 GMT":  0,
		"Wed, 28 Nov 2029 12:00:00 GMT":  time.Hour,
		"Fri, 31 Dec 9999 23:59:59 GMT":  time.Hour,
		"Mon, 01 Jan 0001 00:00:00 GMT":  0,
		"-1":                             0,
		"-9223372036854775808":           0,
		"+5":                             0,
		"1.5":                            0,
		"1e9":                            0,
		"soon":                           0,
		"Fri, 31 Dec 99999 23:59:59 GMT": 0,
	} {
		t.Run(header, func(t *testing.T) {
			got := oci.RetryAfter(header, now)
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				began := time.Now()
				waits := oci.Waits(ctx, got)
				took := time.Since(began)
				if long := want > 10*time.Second; waits == long || long && took > 0 || took > want+150*time.Millisecond {
					t.Errorf("repeated: %t, after %s", waits, took)
				}
			})
		})
	}
}
