package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

// How many calls for scans, and for the digests of tags, may run at once to one host.
const (
	scanConcurrency = 8
	tagConcurrency  = 16
)

// clients are the OCI clients of this process, and the checkers that ask them.
type clients struct {
	who      *oci.Client
	registry *registry.Client
	vault    *vault.Client
	checker  *checker.Checker

	// Scans have separate connections and limits, so that a slow scanning service
	// delays no signature. Digests of tags have them too, because anybody who may
	// create a Pod can make up tags.
	scanned *registry.Client
	scans   *vulnreport.Checker
	tagged  *registry.Client
	tags    *registry.Tags
}

// connect signs in and makes the OCI clients. It sends no request to a service, so its
// errors are about flags, files or a token that could not be had.
func connect(ctx context.Context, o options, observe func(oci.Attempt), panicked func(*contain.PanicError)) (*clients, error) {
	identity := o.who
	// A slow answer is worth a wait in the background, a lost one is not.
	identity.Client = oci.Config{
		CAFile: o.who.Client.CAFile, AttemptTimeout: 4 * time.Second, HedgeAfter: 500 * time.Millisecond,
		Observe: observe, OnDelay: cache.ReportProgress,
	}
	who, err := ociauth.SignIn(ctx, identity)
	if err != nil {
		return nil, err
	}
	c := &clients{who: who}
	images := registry.Config{Tenancies: o.tenancies, Compartments: o.compartments, Panicked: panicked}
	if c.registry, err = registry.New(who, images); err != nil {
		return nil, err
	}
	scanner, err := who.WithConcurrency(scanConcurrency)
	if err != nil {
		return nil, err
	}
	if c.scanned, err = registry.New(scanner, images); err != nil {
		return nil, err
	}
	tagger, err := who.WithConcurrency(tagConcurrency)
	if err != nil {
		return nil, err
	}
	if c.tagged, err = registry.New(tagger, images); err != nil {
		return nil, err
	}
	reports := vulnscan.Check(c.scanned, vulnscan.New(scanner, vulnscan.Config{Tenancy: c.scanned.Tenancy, Compartments: o.compartments}))
	reports.Panicked = panicked
	c.scans = vulnreport.New(reports)
	var vaults vault.Config
	for _, url := range o.endpoints {
		at, err := vault.ParseEndpoint(who.Region(), url)
		if err != nil {
			return nil, fmt.Errorf("--vault-endpoint: %w", err)
		}
		vaults.Endpoints = append(vaults.Endpoints, at)
	}
	c.vault = vault.New(who, vaults)
	c.checker = checker.New(checker.Config{Images: c.registry, Keys: c.vault, Panicked: panicked})
	c.tags = registry.NewTags(c.tagged)
	return c, nil
}

// observe returns the function that counts requests to OCI. Package oci fixes the values
// of all labels.
func observe(metrics prometheus.Registerer) func(oci.Attempt) {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "oke_sign_oci_requests_total",
		Help: "Requests to OCI, including retries, by outcome.",
	}, []string{"service", "operation", "outcome"})
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "oke_sign_oci_request_duration_seconds",
		Help:    "Time that requests to OCI took.",
		Buckets: []float64{.01, .025, .05, .1, .2, .4, .8, 1.5, 3, 10},
	}, []string{"service", "operation"})
	metrics.MustRegister(calls, took)
	return func(a oci.Attempt) {
		calls.WithLabelValues(a.Service, a.Operation, a.Outcome).Inc()
		took.WithLabelValues(a.Service, a.Operation).Observe(a.Took.Seconds())
	}
}
