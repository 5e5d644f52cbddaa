package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// memory measures the caches when they are full, and whether their size stays bounded
// when many more images pass through. A signed message names the repository and the
// digest but no namespace, so one signature serves many namespaces.
func memory(ctx context.Context, churn int) ([]figure, error) {
	const full, signed = 100_000, 100
	w, err := newWorld(signed)
	if err != nil {
		return nil, err
	}
	check := w.checker()
	self := &program{pid: os.Getpid()}
	ask := func(n int) error {
		// Each reference has separate bytes, as in a request.
		ref, err := image.Parse(fmt.Sprintf("iad.ocir.io/ns%d/%s", n/signed, w.names[n%signed]))
		if err != nil {
			return err
		}
		key, err := signature.ParseKeyID(strings.Clone(w.key.String()))
		if err != nil {
			return err
		}
		img, _ := ref.Pinned()
		allowed, err := signature.NewKeySet(key)
		if err != nil {
			return err
		}
		v, err := check.Check(ctx, img, allowed)
		if err == nil && !v.Signed() {
			err = errors.New("not signed: " + v.Detail)
		}
		return err
	}
	before, err := self.resident()
	if err != nil {
		return nil, err
	}
	for n := range full {
		if err := ask(n); err != nil {
			return nil, err
		}
	}
	filled, err := self.resident()
	if err != nil {
		return nil, err
	}
	for n := full; n < churn; n++ {
		if err := ask(n); err != nil {
			return nil, err
		}
	}
	churned, err := self.resident()
	if err != nil {
		return nil, err
	}
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	held := check.Stats()["evidence"].Entries // also keeps the caches alive until here
	return []figure{
		{"memory_before", before, "MiB"},
		{"memory_100000_verdicts", filled, "MiB"},
		{"memory_per_verdict", float64(stats.HeapAlloc) / float64(held), "B"},
		{"churn_images", float64(max(churn, full)), "images"},
		{"churn_images_held", float64(held), "images"},
		{"churn_memory", churned, "MiB"},
		{"churn_memory_of_full", churned / filled, "ratio"},
	}, nil
}
