package main

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// state collects metrics of the caches, the keys and the serving certificate at the
// time of the scrape.
type state struct {
	checker *checker.Checker
	scans   *vulnreport.Checker
	serving *certs.Serving
}

// Describe describes nothing, which makes state an unchecked collector.
func (state) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s state) Collect(to chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		var names, values []string
		for i := 0; i < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		to <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
	}
	caches := s.checker.Stats()
	caches["scans"] = s.scans.Stats()
	for name, c := range caches {
		send(prometheus.GaugeValue, "oke_sign_cache_entries", "Values in the cache; of evidence, one for each image and set of allowed keys.", float64(c.Entries), "cache", name)
		send(prometheus.CounterValue, "oke_sign_cache_hits_total", "Values that were in the cache.", float64(c.Hits), "cache", name)
		send(prometheus.CounterValue, "oke_sign_cache_misses_total", "Values that had to be loaded or waited for.", float64(c.Misses), "cache", name)
		send(prometheus.GaugeValue, "oke_sign_cache_loads_in_flight", "Values that are being loaded now, also those that nobody waits for.", float64(c.UnderWay), "cache", name)
	}
	for name, n := range keyStates(s.checker.KeyStates()) {
		send(prometheus.GaugeValue, "oke_sign_keys", "Allowed keys that signatures name, by the state that OCI Vault gave last.", float64(n), "state", name)
	}
	if at := s.serving.NotAfter(); !at.IsZero() {
		send(prometheus.GaugeValue, "oke_sign_certificate_expiry_timestamp_seconds", "When the serving certificate expires, in Unix time.", float64(at.Unix()))
	}
}

// keyStates returns the counts of keys by state. States of OCI that do not matter here are
// counted as OTHER, so that the label's values are a fixed set.
func keyStates(found map[string]int) map[string]int {
	fixed := []string{verdict.Enabled, "DISABLED", "SCHEDULING_DELETION", "PENDING_DELETION", "DELETED", verdict.NotFound}
	states := map[string]int{"OTHER": 0}
	for _, name := range fixed {
		states[name] = found[name]
	}
	for name, n := range found {
		if !slices.Contains(fixed, name) {
			states["OTHER"] += n
		}
	}
	return states
}
