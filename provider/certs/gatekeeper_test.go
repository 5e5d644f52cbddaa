package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
	"github.com/oke-sign/oke-sign/test/pki"
)

// webhooks returns Gatekeeper's configuration with a bundle of CAs.
func webhooks(bundle []byte) *admissionv1.ValidatingWebhookConfiguration {
	service := &admissionv1.ServiceReference{Namespace: "gatekeeper-system", Name: "gatekeeper-webhook-service"}
	return &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: certs.GatekeeperWebhooks},
		Webhooks: []admissionv1.ValidatingWebhook{
			{Name: "check-ignore-label.gatekeeper.sh", ClientConfig: admissionv1.WebhookClientConfig{CABundle: []byte("another's"), Service: service}},
			{Name: "validation.gatekeeper.sh", ClientConfig: admissionv1.WebhookClientConfig{CABundle: bundle, Service: service}},
		},
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// client returns Gatekeeper's connection with a certificate by this CA.
func client(t *testing.T, ca *pki.Authority) *tls.ConnectionState {
	t.Helper()
	return state(t, issue(t, ca, pki.Leaf{Names: []string{gatekeeper}, NotAfter: time.Now().Add(24 * time.Hour)}))
}

func TestGatekeeper(t *testing.T) {
	ours, theirs := authority(t), authority(t)
	many := bytes.Repeat(ours.PEM(), 17)
	tests := map[string]struct {
		name   string // the configured name of the client
		change func(*admissionv1.ValidatingWebhookConfiguration)
		shows  pki.Leaf
		by     *pki.Authority
		ready  string // a part of the error; empty: ready
		want   string // a part of the error; empty: accepted
	}{
		"Gatekeeper":                               {},
		"another name of the same CA":              {shows: pki.Leaf{Names: []string{"other.svc"}}, want: "not for"},
		"a wildcard":                               {shows: pki.Leaf{Names: []string{"*.gatekeeper-system.svc"}}, want: "not for"},
		"the name by another CA":                   {by: theirs, want: "unknown authority"},
		"a configured name":                        {name: "else.svc", shows: pki.Leaf{Names: []string{"else.svc"}}},
		"Gatekeeper, with another configured name": {name: "else.svc", want: "not for"},
		"in another namespace": {
			change: func(c *admissionv1.ValidatingWebhookConfiguration) {
				c.Webhooks[1].ClientConfig.Service.Namespace = "g"
			},
			shows: pki.Leaf{Names: []string{"gatekeeper-webhook-service.g.svc"}},
		},
		"no bundle": {
			change: func(c *admissionv1.ValidatingWebhookConfiguration) { c.Webhooks[1].ClientConfig.CABundle = nil },
			ready:  "its caBundle is empty", want: "no CA of clients is known",
		},
		"no PEM": {
			change: func(c *admissionv1.ValidatingWebhookConfiguration) { c.Webhooks[1].ClientConfig.CABundle = []byte("x") },
			ready:  "its caBundle holds no certificate", want: "no CA of clients is known",
		},
		"a certificate of no CA": {
			change: func(c *admissionv1.ValidatingWebhookConfiguration) {
				c.Webhooks[1].ClientConfig.CABundle = issue(t, ours, pki.Leaf{Names: []string{gatekeeper}}).Cert
			},
			ready: "is not a CA", want: "no CA of clients is known",
		},
		"too many": {
			change: func(c *admissionv1.ValidatingWebhookConfiguration) { c.Webhooks[1].ClientConfig.CABundle = many },
			ready:  "more than 16 certificates", want: "no CA of clients is known",
		},
		"far too much": {
			change: func(c *admissionv1.ValidatingWebhookConfiguration) {
				c.Webhooks[1].ClientConfig.CABundle = bytes.Repeat([]byte("\n"), 1<<17)
			},
			ready: "larger than 65536 bytes", want: "no CA of clients is known",
		},
		"no such webhook": {
			change: func(c *admissionv1.ValidatingWebhookConfiguration) { c.Webhooks = c.Webhooks[:1] },
			ready:  "it has no webhook validation.gatekeeper.sh", want: "no CA of clients is known",
		},
		"a webhook at a URL": {
			change: func(c *admissionv1.ValidatingWebhookConfiguration) { c.Webhooks[1].ClientConfig.Service = nil },
			ready:  "set --client-name", want: "no CA of clients is known",
		},
		"a webhook at a URL, with a name": {
			name:   gatekeeper,
			change: func(c *admissionv1.ValidatingWebhookConfiguration) { c.Webhooks[1].ClientConfig.Service = nil },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := certs.NewGatekeeper(nil, certs.GatekeeperWebhooks, tt.name, quiet())
			config := webhooks(ours.PEM())
			if tt.change != nil {
				tt.change(config)
			}
			by, shows := tt.by, tt.shows
			if by == nil {
				by = ours
			}
			if shows.Names == nil {
				shows.Names = []string{gatekeeper}
			}
			conn := state(t, issue(t, by, shows))
			if g.Ready() == nil || g.Authorize(conn) == nil {
				t.Error("a caller is accepted before the first configuration")
			}
			g.Take(config)
			expect(t, "Ready", g.Ready(), tt.ready)
			expect(t, "Authorize", g.Authorize(conn), tt.want)
		})
	}
}

func expect(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got %v, want %q", what, err, want)
	}
}

func TestGatekeeperRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := certs.NewGatekeeper(nil, certs.GatekeeperWebhooks, "", quiet())
		first, second, third := authority(t), authority(t), authority(t)
		old, next, last := client(t, first), client(t, second), client(t, third)
		may := func(when string, want ...bool) {
			t.Helper()
			for i, conn := range []*tls.ConnectionState{old, next, last} {
				if err := g.Authorize(conn); (err == nil) != want[i] {
					t.Errorf("%s: client %d: %v", when, i, err)
				}
			}
		}
		g.Take(webhooks(first.PEM()))
		may("at first", true, false, false)
		g.Take(webhooks(second.PEM()))
		may("rotated", true, true, false)
		time.Sleep(14 * time.Minute)
		g.Take(webhooks(second.PEM())) // which is nothing new
		may("14 minutes later", true, true, false)
		g.Take(webhooks(third.PEM()))
		may("rotated again", true, true, true)
		time.Sleep(2 * time.Minute)
		may("16 minutes later", false, true, true)
		g.Take(webhooks(append(third.PEM(), second.PEM()...)))
		time.Sleep(time.Hour)
		may("both in the bundle", false, true, true)

		g.Take(nil)
		may("the configuration is gone", false, true, true)
		expect(t, "Ready", g.Ready(), "")
		time.Sleep(14 * time.Minute)
		g.Take(webhooks([]byte("nonsense")))
		may("and comes back as nonsense", false, true, true)
		time.Sleep(2 * time.Minute)
		may("16 minutes later", false, false, false)
		expect(t, "Ready", g.Ready(), "its caBundle holds no certificate")
		g.Take(webhooks(third.PEM()))
		may("it is back", false, false, true)
		expect(t, "Ready", g.Ready(), "")
	})
}

// However often a CA changes, the memory for CAs is bounded.
func TestGatekeeperRotatesOften(t *testing.T) {
	g := certs.NewGatekeeper(nil, certs.GatekeeperWebhooks, "", quiet())
	var conns []*tls.ConnectionState
	for range 10 {
		ca := authority(t)
		conns = append(conns, client(t, ca))
		g.Take(webhooks(ca.PEM()))
	}
	for i, conn := range conns {
		if err := g.Authorize(conn); (err == nil) != (i >= 6) {
			t.Errorf("client %d of 10: %v", i, err)
		}
	}
}

const webhooksPath = fakeapiserver.Webhooks + "/" + certs.GatekeeperWebhooks

func cluster(t *testing.T, api *fakeapiserver.Guarded) *certs.Cluster {
	t.Helper()
	c, err := certs.NewCluster(api.Host, api.Port, api.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// until repeats a check, because the other side takes time.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestGatekeeperIsFollowed(t *testing.T) {
	api := fakeapiserver.StartGuarded(t, "list "+webhooksPath, "watch "+webhooksPath)
	g := certs.NewGatekeeper(cluster(t, api), certs.GatekeeperWebhooks, "", quiet())
	var following sync.WaitGroup
	defer following.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	following.Go(func() { g.Follow(ctx) })
	until(t, "it says what is missing", func() bool {
		err := g.Ready()
		return err != nil && strings.Contains(err.Error(), "it does not exist: is Gatekeeper installed?")
	})
	first, second := authority(t), authority(t)
	old, next := client(t, first), client(t, second)
	api.Set(webhooksPath, webhooks(first.PEM()))
	until(t, "the first CA is trusted", func() bool { return g.Authorize(old) == nil })
	if err := g.Authorize(next); err == nil {
		t.Error("the second CA is trusted")
	}
	api.Set(webhooksPath, webhooks(second.PEM()))
	until(t, "the second CA is trusted", func() bool { return g.Authorize(next) == nil && g.Authorize(old) == nil })
	api.Delete(webhooksPath)
	if err := g.Ready(); err != nil {
		t.Error(err)
	}
	if !slices.Contains(api.Asked(), "watch "+webhooksPath) {
		t.Error("nothing is watched")
	}
}

// An API server may end each watch at once without an error. It does not get endless
// requests. The bubble has the time, and the API server is a function.
func TestWatchesThatEndAtOnce(t *testing.T) {
	bundle := authority(t).PEM()
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			lasts       time.Duration // each watch
			least, most int           // lists in ten minutes
		}{
			"at once":            {0, 20, 30},
			"after a minute":     {time.Minute, 8, 12},
			"after five minutes": {5 * time.Minute, 2, 3},
		} {
			lists := 0
			g := certs.NewGatekeeper(certs.ClusterOf(func(r *http.Request) (*http.Response, error) {
				w := httptest.NewRecorder()
				w.Header().Set("Content-Type", "application/json")
				if r.URL.Query().Get("watch") != "" {
					time.Sleep(tt.lasts)
					return w.Result(), nil
				}
				lists++
				err := json.NewEncoder(w).Encode(admissionv1.ValidatingWebhookConfigurationList{
					TypeMeta: metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingWebhookConfigurationList"},
					Items:    []admissionv1.ValidatingWebhookConfiguration{*webhooks(bundle)},
				})
				return w.Result(), err
			}), certs.GatekeeperWebhooks, "", quiet())
			ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
			g.Follow(ctx)
			stop()
			if lists < tt.least || lists > tt.most {
				t.Errorf("watches that end %s: %d lists in ten minutes, want %d to %d", name, lists, tt.least, tt.most)
			}
			if err := g.Ready(); err != nil {
				t.Errorf("watches that end %s: %v", name, err)
			}
		}
	})
}

func TestGatekeeperCannotBeRead(t *testing.T) {
	for name, test := range map[string]struct {
		rights []string
		status int
		says   string
	}{
		"no right":          {nil, 0, "is forbidden"},
		"no right to watch": {[]string{"list " + webhooksPath}, 0, ""},
		"out of order":      {[]string{"list " + webhooksPath, "watch " + webhooksPath}, http.StatusInternalServerError, "internalerror"},
	} {
		t.Run(name, func(t *testing.T) {
			api := fakeapiserver.StartGuarded(t, test.rights...)
			api.Fail(func(string, string) int { return test.status })
			api.Set(webhooksPath, webhooks(authority(t).PEM()))
			g := certs.NewGatekeeper(cluster(t, api), certs.GatekeeperWebhooks, "", quiet())
			var following sync.WaitGroup
			defer following.Wait()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			following.Go(func() { g.Follow(ctx) })
			until(t, "it was asked", func() bool { return len(api.Asked()) > 0 })
			if test.says == "" { // what can be read counts
				until(t, "ready", func() bool { return g.Ready() == nil })
				return
			}
			until(t, "it says why", func() bool { return strings.Contains(g.Ready().Error(), test.says) })
		})
	}
}

func FuzzParseAuthorities(f *testing.F) {
	ca, err := pki.NewAuthority("ca")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ca.PEM())
	f.Add(append(ca.PEM(), ca.PEM()...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, bundle []byte) {
		list, err := certs.ParseAuthorities(bundle)
		if err != nil {
			if list != nil {
				t.Error("an error with certificates")
			}
			return
		}
		if len(list) == 0 {
			t.Fatal("no certificate, and no error")
		}
		again, err := certs.ParseAuthorities(certs.EncodeCAs(list))
		if err != nil || !slices.EqualFunc(list, again, (*x509.Certificate).Equal) {
			t.Errorf("written and read again: %v", err)
		}
	})
}
