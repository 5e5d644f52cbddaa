package main

import (
	"testing"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// The benchmark measures real decisions: only a real signature gives a yes.
func TestWorld(t *testing.T) {
	w, err := newWorld(keysPerRequest)
	if err != nil {
		t.Fatal(err)
	}
	check := w.checker()
	verdictOn := func(i int) checker.Answer {
		t.Helper()
		ref, err := image.Parse(w.images[i])
		if err != nil {
			t.Fatal(err)
		}
		img, _ := ref.Pinned()
		allowed, err := signature.NewKeySet(w.key)
		if err != nil {
			t.Fatal(err)
		}
		v, err := check.Check(t.Context(), img, allowed)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for i := range w.images[1:] {
		if v := verdictOn(i + 1); !v.Signed() {
			t.Errorf("%s: %+v", w.images[i+1], v)
		}
	}
	first, err := image.Parse(w.images[0])
	if err != nil {
		t.Fatal(err)
	}
	second, err := image.Parse(w.images[1])
	if err != nil {
		t.Fatal(err)
	}
	w.records[nameOf(first)] = w.records[nameOf(second)]
	if v := verdictOn(0); v.Reason != verdict.WrongImage {
		t.Errorf("with another image's signature: %+v", v)
	}
}
