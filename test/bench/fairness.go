package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// fairness counts the Pods with one new image that get an answer within the budget,
// while other clients send invented image references. The others have 40 requests of
// 100 images in flight at any time. Each image costs two calls to OCI.
func fairness(ctx context.Context, s *scene) []figure {
	const requests, images, pods = 40, 100, 10
	fresh := s.images(1+2*pods, 1+2*pods)
	s.yes(ctx, fresh[0]) // finds the key
	clear := s.slow()
	defer clear()
	alone, _ := s.pods(ctx, fresh[1:1+pods])

	var stop atomic.Bool
	var made atomic.Int64
	var others sync.WaitGroup
	for range requests {
		others.Go(func() {
			for !stop.Load() {
				keys := make([]string, images)
				for i := range keys {
					n := made.Add(1)
					keys[i] = question(fmt.Sprintf("iad.ocir.io/%s/made-up-%d@sha256:%064x", s.tenancy.Namespace, n, n), s.key.ID)
				}
				_, _ = s.ask(ctx, envelope(keys)) // the answer does not matter
			}
		})
	}
	time.Sleep(3 * time.Second)
	took, answered := s.pods(ctx, fresh[1+pods:])
	stop.Store(true)
	others.Wait()
	return []figure{
		{"fairness-answered", float64(answered), fmt.Sprintf("of-%d", pods)},
		{"fairness-first-answer", middle(took), "ms"},
		{"fairness-first-answer-alone", middle(alone), "ms"},
	}
}

// pods asks for each image once, one after another, and counts the answers.
func (s *scene) pods(ctx context.Context, images []*ocitest.Image) (took []time.Duration, answered int) {
	for _, img := range images {
		got := must(s.ask(ctx, s.questions(img)))
		took = append(took, got.took)
		if strings.TrimSpace(got.trouble) == "" && got.signed == 1 {
			answered++
		}
		time.Sleep(300 * time.Millisecond)
	}
	return took, answered
}
