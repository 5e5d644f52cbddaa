package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// attack measures the provider's answers to other clients during an attack on its
// availability.
func attack(ctx context.Context, s *scene, config *tls.Config, lasting time.Duration) []figure {
	images := s.images(keysPerRequest, 1)
	s.yes(ctx, images...)
	body := s.questions(images...)
	var figures []figure
	for _, idle := range []struct {
		name string
		n    int
		addr string
		tls  *tls.Config
	}{{"attack_5000_idle", 5000, s.provider.addr, config}, {"attack_12000_idle_health", 12_000, s.provider.health, nil}} {
		quiet := must(s.provider.load(ctx, body, config, lasting))
		release := hold(ctx, idle.addr, idle.n, idle.tls)
		under := must(s.provider.load(ctx, body, config, lasting))
		figures = append(figures, figure{idle.name + "_cpu_of_quiet", quiet.rate() / under.rate(), "ratio"},
			figure{idle.name + "_memory", must(s.provider.resident()), "MiB"})
		release()
	}
	figures = append(figures, figure{"attack_300_slow_bodies_cached_p99", p99(s.during(ctx, images[0], lasting, func(end <-chan struct{}) {
		trickle(ctx, s.provider.addr, config, 300, end)
	})), "ms"})

	unknown := s.images(192, 1)
	s.tenancy.Fault(ocitest.Fault{Operation: "*", Kind: ocitest.Hang})
	figures = append(figures, figure{"attack_192_wait_for_oci_cached_p99", p99(s.during(ctx, images[0], lasting, func(end <-chan struct{}) {
		s.waitForOCI(ctx, unknown, end)
	})), "ms"})
	s.cloud.ClearFaults()
	return append(figures, figure{"attack_140_unread_answers_peak", s.unread(ctx, config, 140), "MiB"})
}

// hold opens connections and sends no request on them.
func hold(ctx context.Context, addr string, n int, config *tls.Config) (release func()) {
	var mu sync.Mutex
	var conns []net.Conn
	var next atomic.Int64
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for next.Add(1) <= int64(n) {
				c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
				if err != nil {
					continue // a rejection is fine too
				}
				if config != nil {
					conn := tls.Client(c, named(config))
					_ = conn.HandshakeContext(ctx) // the provider may have closed it
				}
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
}

func named(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.ServerName = "127.0.0.1"
	return config
}

// during asks for a cached image, 50 times a second, while an attack goes on.
func (s *scene) during(ctx context.Context, img *ocitest.Image, lasting time.Duration, attack func(end <-chan struct{})) []time.Duration {
	end := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() { attack(end) })
	defer wait.Wait()
	defer close(end)
	time.Sleep(500 * time.Millisecond) // until the attack has begun
	var took []time.Duration
	for until := time.Now().Add(lasting); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		took = append(took, s.yes(ctx, img))
	}
	return took
}

func p99(took []time.Duration) float64 {
	slices.Sort(took)
	return milliseconds(took[len(took)*99/100])
}

// trickle sends endless bodies, again and again.
func trickle(ctx context.Context, addr string, config *tls.Config, n int, end <-chan struct{}) {
	var wait sync.WaitGroup
	for range n {
		wait.Go(func() {
			for {
				conn, err := (&tls.Dialer{Config: named(config)}).DialContext(ctx, "tcp", addr)
				if err == nil {
					_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", server.SignaturesPath)
					_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
					_, _ = io.Copy(io.Discard, conn)
					_ = conn.Close()
				}
				select {
				case <-end:
					return
				default:
				}
			}
		})
	}
	wait.Wait()
}

// waitForOCI asks for unknown images, each on a new connection.
func (s *scene) waitForOCI(ctx context.Context, images []*ocitest.Image, end <-chan struct{}) {
	var wait sync.WaitGroup
	for _, img := range images {
		wait.Go(func() {
			for {
				_, _ = s.ask(ctx, s.questions(img)) // there is no answer
				select {
				case <-end:
					return
				default:
				}
			}
		})
	}
	wait.Wait()
}

// unread sends requests of 1 MiB on many connections and reads no answer. It returns
// the provider's peak memory, in MiB.
func (s *scene) unread(ctx context.Context, config *tls.Config, n int) float64 {
	keys := make([]string, 250)
	for i := range keys {
		keys[i] = fmt.Sprint(i) + strings.Repeat("\x00", 4070)
	}
	body := strings.ReplaceAll(envelope(keys), `\u0000`, "<")
	var wait sync.WaitGroup
	defer wait.Wait()
	end := make(chan struct{})
	defer close(end)
	for range n {
		wait.Go(func() {
			conn, err := (&tls.Dialer{Config: named(config)}).DialContext(ctx, "tcp", s.provider.addr)
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", server.SignaturesPath, len(body), body)
			<-end
		})
	}
	peak := 0.0
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		peak = max(peak, must(s.provider.resident()))
	}
	return peak
}
