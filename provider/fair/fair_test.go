package fair_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oke-sign/oke-sign/provider/fair"
)

func request(t *testing.T) *fair.Waiters { return fair.Of(fair.Request(t.Context())) }

// order removes all turns of a queue and returns their values.
func order(q *fair.Queue[string]) string {
	var values []string
	for q.Len() > 0 {
		v, _, ok := q.Next()
		if !ok {
			panic("a queue with turns has no next one")
		}
		values = append(values, v)
	}
	return strings.Join(values, " ")
}

func TestOneTurnEach(t *testing.T) {
	a, b, c := request(t), request(t), request(t)
	var q fair.Queue[string]
	for n := range 4 {
		q.Wait(a, fmt.Sprint("a", n))
	}
	q.Wait(b, "b0")
	q.Wait(b, "b1")
	q.Wait(c, "c0")
	if got, want := order(&q), "a0 b0 c0 a1 b1 a2 a3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A late request comes before those that got a slot since, and cannot claim earlier slots.
func TestLateComer(t *testing.T) {
	a, b, c := request(t), request(t), request(t)
	var q fair.Queue[string]
	for n := range 6 {
		q.Wait(a, fmt.Sprint("a", n))
		q.Wait(b, fmt.Sprint("b", n))
	}
	for range 6 {
		q.Next()
	}
	for n := range 3 {
		q.Wait(c, fmt.Sprint("c", n))
	}
	if got, want := order(&q), "c0 a3 b3 c1 a4 b4 c2 a5 b5"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// All work without waiters takes turns like one request.
func TestWorkWithoutWaiters(t *testing.T) {
	a := request(t)
	var q fair.Queue[string]
	for n := range 4 {
		given := fair.Shared()
		given.Join(a)
		given.Leave(a)
		q.Wait(given, fmt.Sprint("left", n))
	}
	q.Wait(a, "a0")
	q.Wait(a, "a1")
	if got, want := order(&q), "a0 left0 a1 left1 left2 left3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Shared work takes the turn of its waiter with the fewest slots.
func TestSharedWork(t *testing.T) {
	a, b := request(t), request(t)
	load := fair.Shared() // for a, and later also for b
	load.Join(a)
	call := fair.Shared() // the load waits for it
	call.Join(load)
	var q fair.Queue[string]
	q.Wait(a, "a0")
	q.Wait(a, "a1")
	q.Wait(call, "shared")
	q.Wait(b, "b0")
	first, _, _ := q.Next()
	load.Join(b)
	if got, want := first+" "+order(&q), "a0 shared a1 b0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Without its last waiter the work belongs to no request.
	load.Leave(a)
	load.Leave(b)
	q.Wait(call, "shared")
	if _, who, _ := q.Next(); who != nil {
		t.Error("the turn is charged to a request that has left")
	}
}

// If slots are so scarce that requests give up first, the newest request has the most
// time left.
func TestNewestFirstAfterALongWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q fair.Queue[string]
		for n := range 3 {
			q.Wait(request(t), fmt.Sprint("old", n))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(600 * time.Millisecond)
		q.Wait(request(t), "new0")
		q.Wait(request(t), "new1")
		if got, want := order(&q), "new0 new1 old2 old1 old0"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestLeave(t *testing.T) {
	a := request(t)
	var q fair.Queue[string]
	first := q.Wait(a, "a0")
	q.Wait(a, "a1")
	if !q.Leave(first) || q.Leave(first) || q.Len() != 1 {
		t.Error("Leave does not remove the turn exactly once")
	}
	if v, ok := q.NextOf(request(t)); ok {
		t.Errorf("%s belongs to another request", v)
	}
	if v, ok := q.NextOf(a); !ok || v != "a1" {
		t.Errorf("got %q", v)
	}
	if _, _, ok := q.Next(); ok {
		t.Error("an empty queue has a next turn")
	}
}

// No request gets more than two slots while another request waits for its first.
func TestNoRequestIsPassedTwice(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the test is repeatable
	var q fair.Queue[*fair.Waiters]
	var waiting []*fair.Waiters
	had := make(map[*fair.Waiters]int) // slots since the honest request arrived
	honest := request(t)
	in := false
	for range 20_000 {
		if random.IntN(4) == 0 && len(waiting) < 50 {
			waiting = append(waiting, request(t))
		}
		for _, who := range waiting {
			if random.IntN(3) == 0 && q.Len() < 500 {
				q.Wait(who, who)
			}
		}
		if !in {
			q.Wait(honest, honest)
			clear(had)
		}
		who, _, _ := q.Next()
		had[who]++
		if in = who != honest; in && had[who] > 2 {
			t.Fatal("a request got three slots while another one waited for its first")
		}
		if random.IntN(20) == 0 && len(waiting) > 0 {
			waiting = slices.Delete(waiting, 0, 1)
		}
	}
}

func TestNoRequest(t *testing.T) {
	if fair.Of(t.Context()).IsRequest() || fair.Shared().IsRequest() || !request(t).IsRequest() {
		t.Error("IsRequest is true without a request, or false for one")
	}
	ctx := context.WithoutCancel(fair.Request(t.Context()))
	if w := fair.Shared(); fair.Of(w.With(ctx)) != w {
		t.Error("the context has other waiters than those that With got")
	}
}

func TestSemaphore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fair.NewSemaphore(2)
		var wg sync.WaitGroup
		var running, most, given atomic.Int64
		for range 50 {
			ctx, cancel := context.WithTimeout(fair.Request(t.Context()), 500*time.Millisecond)
			wg.Go(func() {
				defer cancel()
				release, err := p.Acquire(ctx)
				if err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					return
				}
				given.Add(1)
				most.Store(max(most.Load(), running.Add(1)))
				time.Sleep(100 * time.Millisecond)
				running.Add(-1)
				release()
				release() // has no effect
			})
		}
		wg.Wait()
		if most.Load() != 2 || given.Load() < 10 || given.Load() > 12 {
			t.Errorf("%d at once, %d in all", most.Load(), given.Load())
		}
		for range 2 { // requests that gave up hold no slot
			if _, err := p.Acquire(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}
