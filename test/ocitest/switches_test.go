package ocitest_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

func TestPresetsAreOpposite(t *testing.T) {
	t.Parallel()
	a, b := reflect.ValueOf(ocitest.Strict()), reflect.ValueOf(ocitest.Lenient())
	for i := range a.NumField() {
		if a.Field(i).Interface() == b.Field(i).Interface() {
			t.Errorf("%s is %v in both presets", a.Type().Field(i).Name, a.Field(i))
		}
	}
}

func TestParseSwitches(t *testing.T) {
	t.Parallel()
	changed := ocitest.Lenient()
	changed.Salt, changed.PageLimit, changed.EmptyPages = "hash", 3, false
	for text, want := range map[string]ocitest.Switches{
		"":        ocitest.Strict(),
		"a":       ocitest.Strict(),
		"strict":  ocitest.Strict(),
		"b":       ocitest.Lenient(),
		"lenient": ocitest.Lenient(),
		"lenient,salt=hash,pageLimit=3,emptyPages=false": changed,
	} {
		got, err := ocitest.ParseSwitches(text)
		if err != nil || got != want {
			t.Errorf("%q: %v %v, want %v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"loose":                       "neither strict nor lenient",
		"strict,salt":                 "has no value",
		"strict,salt=sea":             "not one of",
		"strict,pepper=black":         "unknown field",
		"strict,pageLimit=0":          "not between",
		"strict,pageLimit=many":       "pageLimit",
		"strict,emptyPages=sometimes": "emptyPages",
		"strict,uploadTwice=1":        "uploadTwice",
	} {
		if _, err := ocitest.ParseSwitches(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want …%s…", text, err, want)
		}
	}
}
