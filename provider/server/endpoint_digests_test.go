package server_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/server"
)

const (
	newest = "sha256:ee44ee44ee44ee44ee44ee44ee44ee44ee44ee44ee44ee44ee44ee44ee44ee44"
	digest = "sha256:ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12"
)

func digested(find func(context.Context, image.Reference) (string, error)) server.Config {
	return server.Config{Signatures: server.Signatures{Check: signed}, Digests: server.Digests{Check: find}}
}

// TestDigests checks the contract with Gatekeeper's mutation. It uses the value of
// an item as text, and it ends the request at any error.
func TestDigests(t *testing.T) {
	h := server.New(digested(func(_ context.Context, ref image.Reference) (string, error) {
		switch ref.Repository() {
		case "gone":
			return "", nil
		case "odd":
			return "latest", nil
		case "panic":
			panic("hostile")
		case "down":
			return "", errors.New("503")
		case "failed":
			return newest, errors.New("truncated answer")
		}
		return newest, nil
	}))
	for name, tt := range map[string]struct{ asked, want, trouble string }{
		"a tag":                 {asked: "iad.ocir.io/ns/web:v1", want: "iad.ocir.io/ns/web:v1@" + newest},
		"no tag":                {asked: "iad.ocir.io/ns/web", want: "iad.ocir.io/ns/web@" + newest},
		"a digest":              {asked: "iad.ocir.io/ns/web@" + digest, want: "iad.ocir.io/ns/web@" + digest},
		"tag and digest":        {asked: "iad.ocir.io/ns/web:v1@" + digest, want: "iad.ocir.io/ns/web:v1@" + digest},
		"another registry":      {asked: "nginx:latest", want: "nginx:latest"},
		"an ambiguous name":     {asked: "IAD.ocir.io/ns/web:v1", want: "IAD.ocir.io/ns/web:v1"},
		"no image named":        {},
		"no such image":         {asked: "iad.ocir.io/ns/gone:v1", want: "iad.ocir.io/ns/gone:v1"},
		"an invalid digest":     {asked: "iad.ocir.io/ns/odd:v1", trouble: "internal error"},
		"a panic":               {asked: "iad.ocir.io/ns/panic:v1", trouble: "internal error"},
		"a digest and an error": {asked: "iad.ocir.io/ns/failed:v1", trouble: "truncated answer"},
		"OCI is down":           {asked: "iad.ocir.io/ns/down:v1", trouble: "503"},
		"a question about keys": {asked: `{"image":"iad.ocir.io/ns/web:v1"}`, want: `{"image":"iad.ocir.io/ns/web:v1"}`},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := postTo(t, h, server.DigestsPath, tt.asked)
			items := answer.Response.Items
			if tt.trouble != "" {
				if len(items) != 0 || !strings.Contains(answer.Response.SystemError, tt.trouble) {
					t.Errorf("got %+v, want no item and %q", answer.Response, tt.trouble)
				}
				return
			}
			if status != http.StatusOK || len(items) != 1 || items[0].Key != tt.asked || items[0].Value != tt.want || items[0].Error != "" || answer.Response.SystemError != "" || !answer.Response.Idempotent {
				t.Errorf("got %d %+v, want %q", status, answer.Response, tt.want)
			}
		})
	}
	if _, answer := postTo(t, h, server.DigestsPath, strings.Repeat("a", server.MaxQuestion+1)); len(answer.Response.Items) == 1 && answer.Response.Items[0].Error == "" {
		t.Errorf("a key without end: %+v", answer.Response)
	}
	if status, _ := postTo(t, server.New(checking(signed)), server.DigestsPath, "nginx"); status != http.StatusNotFound {
		t.Errorf("a server without this endpoint: %d", status)
	}
}

// A Pod waits for digests first and for signatures afterwards.
func TestDigestsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := server.New(digested(func(ctx context.Context, _ image.Reference) (string, error) {
			<-ctx.Done()
			return "", context.Cause(ctx)
		}))
		began := time.Now()
		_, answer := postTo(t, h, server.DigestsPath, "iad.ocir.io/ns/web:v1", "nginx")
		if took := time.Since(began); took > 700*time.Millisecond || len(answer.Response.Items) != 1 || answer.Response.SystemError == "" {
			t.Errorf("after %s: %+v", took, answer.Response)
		}
	})
}

// The replacement of an image is the image itself, or the image with a digest.
func TestValidReplacement(t *testing.T) {
	const tagged = "iad.ocir.io/ns/web:v1"
	for name, tt := range map[string]struct {
		question, answer string
		ok               bool
	}{
		"the image unchanged":                     {tagged, tagged, true},
		"an image of another registry unchanged":  {"nginx", "nginx", true},
		"a digest is added":                       {tagged, tagged + "@" + newest, true},
		"an invalid digest":                       {tagged, tagged + "@sha256:ee44", false},
		"another repository":                      {tagged, "iad.ocir.io/ns/other:v1@" + newest, false},
		"another repository with the same prefix": {tagged, tagged + "0@" + newest, false},
		"a digest for another registry's image":   {"nginx:1", "nginx:1@" + newest, false},
		"a digest in place of another":            {tagged + "@" + digest, tagged + "@" + newest, false},
		"a digest beside another":                 {tagged + "@" + digest, tagged + "@" + digest + "@" + newest, false},
		"nothing":                                 {tagged, "", false},
		"a digest alone":                          {tagged, newest, false},
		"no digest after the @":                   {tagged, tagged + "@", false},
		"a reference that is too long with its digest": {
			"iad.ocir.io/ns/" + strings.Repeat("a", 1000), "iad.ocir.io/ns/" + strings.Repeat("a", 1000) + "@" + newest, false,
		},
	} {
		if err := server.ValidReplacement(tt.question, tt.answer); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
