package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

const (
	latency = 60 * time.Millisecond // of OCI, unless the figure's name says otherwise
	listing = "artifacts.ListContainerImageSignatures"
	signing = "SHA_256_RSA_PKCS_PSS"
)

// scene is an emulated OCI with one provider that uses it.
type scene struct {
	cloud    *ocitest.Cloud
	tenancy  *ocitest.Tenancy
	key      *ocitest.Key
	provider *program
	client   *http.Transport
	tb       *bystander
	made     int // batches of images
	start    func() (*program, error)
}

// bystander lets the emulator's fixtures run outside a test. A failure ends the
// measurement.
type bystander struct {
	testing.TB
	dir  string
	made int
	done []func()
}

func (b *bystander) Helper()                   {}
func (b *bystander) Name() string              { return "bench" }
func (b *bystander) Cleanup(f func())          { b.done = append(b.done, f) }
func (b *bystander) Fatal(args ...any)         { panic(errors.New(fmt.Sprint(args...))) }
func (b *bystander) Fatalf(f string, a ...any) { panic(fmt.Errorf(f, a...)) }

func (b *bystander) TempDir() string {
	b.made++
	dir := filepath.Join(b.dir, fmt.Sprint(b.made))
	if err := os.Mkdir(dir, 0o700); err != nil {
		panic(err)
	}
	return dir
}

// stage sets up a scene, runs the measurement, and removes the scene.
func stage(ctx context.Context, path, dir string, client *tls.Config, env []string, play func(*scene) []figure) (figures []figure, err error) {
	home, err := os.MkdirTemp(dir, "scene-")
	if err != nil {
		return nil, err
	}
	cloud, err := ocitest.New(ocitest.Config{})
	if err != nil {
		return nil, err
	}
	s := &scene{cloud: cloud, client: &http.Transport{TLSClientConfig: client.Clone(), MaxIdleConnsPerHost: 1000}, tb: &bystander{dir: home}}
	defer func() {
		if p := recover(); p != nil {
			failed, ok := p.(error)
			if !ok {
				panic(p)
			}
			err = failed
		}
		if s.provider != nil {
			s.provider.stop()
		}
		s.client.CloseIdleConnections()
		err = errors.Join(err, cloud.Close())
	}()
	s.tenancy = cloud.NewTenancy(s.tb, ocitest.TenancyConfig{})
	s.key = s.tenancy.NewVault("vault", "").NewKey("key", ocitest.RSA2048)
	config := s.tenancy.Admin().ConfigFile()
	s.start = func() (*program, error) {
		return startProvider(ctx, path, dir, config, append(cloud.Env(), env...))
	}
	if s.provider, err = s.start(); err != nil {
		return nil, err
	}
	return play(s), nil
}

// restart starts a new provider with empty caches.
func (s *scene) restart() {
	s.provider.stop()
	s.client.CloseIdleConnections()
	s.provider = nil // in case the new one does not start
	s.provider = must(s.start())
}

// must ends the measurement; see bystander.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// images creates signed images, spread over repositories.
func (s *scene) images(n, repositories int) []*ocitest.Image {
	made := make([]*ocitest.Image, n)
	s.made++
	for i := range made {
		made[i] = s.tenancy.NewImage(fmt.Sprintf("team-%d/app-%d", s.made, i%repositories))
	}
	s.sign(made)
	return made
}

func (s *scene) sign(images []*ocitest.Image) {
	for _, img := range images {
		s.tenancy.Add(img.Sign(s.key, signing))
	}
}

func (s *scene) slow() func() {
	id := s.tenancy.Fault(ocitest.Fault{Operation: "*", Kind: ocitest.Latency, Delay: ocitest.Duration(latency)})
	return func() { s.cloud.ClearFault(id) }
}

func (s *scene) questions(images ...*ocitest.Image) string {
	keys := make([]string, len(images))
	for i, img := range images {
		keys[i] = question(img.Ref(), s.key.ID)
	}
	return envelope(keys)
}

// answer is the answer to one request.
type answer struct {
	signed  int
	trouble string
	took    time.Duration
}

func (s *scene) ask(ctx context.Context, body string) (answer, error) {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s.provider.addr+server.SignaturesPath, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	res, err := s.client.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	text, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return answer{}, err
	}
	var got server.ProviderResponse
	if err := json.Unmarshal(text, &got); err != nil {
		return answer{}, err
	}
	return answer{strings.Count(string(text), `"signed":true`), got.Response.SystemError, time.Since(began)}, nil
}

// yes asks, and fails unless every image is signed.
func (s *scene) yes(ctx context.Context, images ...*ocitest.Image) time.Duration {
	got := must(s.ask(ctx, s.questions(images...)))
	if got.signed != len(images) {
		panic(fmt.Errorf("%d of %d images are signed: %s", got.signed, len(images), got.trouble))
	}
	return got.took
}

// settled asks until there is an answer, like a controller. Work that the first request
// began continues.
func (s *scene) settled(ctx context.Context, img *ocitest.Image) (signed bool) {
	for range 5 {
		if got := must(s.ask(ctx, s.questions(img))); got.trouble == "" {
			return got.signed == 1
		}
	}
	panic(errors.New("no answer to the fifth request"))
}

func (s *scene) calls(prefix string) int {
	n := 0
	for operation, count := range s.tenancy.Calls() {
		if strings.HasPrefix(operation, prefix) {
			n += count
		}
	}
	return n
}

// inside returns the time that all requests so far have spent in the provider.
func (s *scene) inside(ctx context.Context) time.Duration {
	sum := must(s.provider.metric(ctx, `oke_sign_request_duration_seconds_sum{endpoint="signatures",outcome="answered"}`))
	return time.Duration(sum * float64(time.Second))
}

// outside returns the time that the emulated OCI had these requests, with its latency.
// The difference to inside is the provider's work and the network.
func (s *scene) outside() time.Duration {
	var sum time.Duration
	for _, r := range s.tenancy.Requests() {
		sum += time.Duration(r.Took)
	}
	return sum
}

// middle returns the median.
func middle(times []time.Duration) float64 {
	slices.Sort(times)
	return milliseconds(times[len(times)/2])
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// cold measures the first question about an image, with the key's state cached. Each
// image is in a different repository, unless stated otherwise.
func cold(ctx context.Context, s *scene) []figure {
	const n, many = 15, 100
	fresh := s.images(1+many+n+10*n+2, 1+many+n+10*n+2)
	take := func(k int) []*ocitest.Image {
		taken := fresh[:k]
		fresh = fresh[k:]
		return taken
	}
	s.yes(ctx, take(1)...) // loads the key's state
	var own, one, ten, alike []time.Duration
	used := must(s.provider.cpu())
	for range many {
		own = append(own, s.yes(ctx, take(1)...))
	}
	used = must(s.provider.cpu()) - used
	clear := s.slow()
	before, inside, outside := s.calls(""), s.inside(ctx), s.outside()
	for range n {
		one = append(one, s.yes(ctx, take(1)...))
	}
	calls := s.calls("") - before
	inside, outside = s.inside(ctx)-inside, s.outside()-outside
	for range n {
		ten = append(ten, s.yes(ctx, take(10)...))
	}
	before = s.calls("")
	for range n {
		alike = append(alike, s.yes(ctx, s.images(10, 1)...))
	}
	alikeCalls := s.calls("") - before

	// A burst for one unknown image.
	burst := s.questions(take(1)...)
	before = s.calls(listing)
	var wait sync.WaitGroup
	var mu sync.Mutex
	var slowest time.Duration
	signed := 0
	for range 1000 {
		wait.Go(func() {
			got, err := s.ask(ctx, burst)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				signed += got.signed
			}
			slowest = max(slowest, got.took)
		})
	}
	wait.Wait()
	burstCalls := s.calls(listing) - before

	// Signature records that anybody with the right to push can add.
	honest := take(1)[0]
	flooded := s.tenancy.NewImage("team/flooded")
	genuine := flooded.Sign(s.key, signing)
	for i := range 200 {
		hostile := genuine
		hostile.KeyVersionID = fmt.Sprintf("ocid1.keyversion.oc1.iad.b5r7bu4kaaeug.%060d", i)
		s.tenancy.Add(hostile)
	}
	s.tenancy.Add(genuine)
	before = s.calls("keymanagement")
	s.yes(ctx, honest)
	honestCalls := s.calls("keymanagement") - before
	lists := s.calls(listing)
	began := time.Now()
	if !s.settled(ctx, flooded) {
		panic(errors.New("hostile records hide the honest one"))
	}
	took := time.Since(began)
	lists = s.calls(listing) - lists
	floodedCalls := s.calls("keymanagement") - before - honestCalls
	clear()
	return []figure{
		{"cold_verdict_no_latency", middle(own), "ms"},
		{"cold_verdict", middle(one), "ms"},
		{"cold_verdict_of_round_trip", middle(one) / milliseconds(latency), "ratio"},
		{"cold_verdict_calls", float64(calls) / n, "calls/verdict"},
		{"cold_verdict_in_server", milliseconds(inside) / n, "ms"},
		{"cold_verdict_in_oci", milliseconds(outside) / n, "ms"},
		{"cold_verdict_own", milliseconds(inside-outside) / n, "ms"},
		{"cold_verdict_own_cpu", milliseconds(used) / many, "ms"},
		{"cold_batch_of_10", middle(ten), "ms"},
		{"cold_batch_of_10_of_one", middle(ten) / middle(one), "ratio"},
		{"cold_batch_of_10_of_one_repository", middle(alike), "ms"},
		{"cold_batch_of_10_of_one_repository_calls", float64(alikeCalls) / n, "calls/batch"},
		{"burst_of_1000_calls", float64(burstCalls), "calls"},
		{"burst_of_1000_answered", float64(signed), "answers"},
		{"burst_of_1000_slowest", milliseconds(slowest), "ms"},
		{"honest_record_vault_calls", float64(honestCalls), "calls"},
		{"hostile_200_records_vault_calls", float64(floodedCalls), "calls"},
		{"hostile_200_records_lists", float64(lists), "calls"},
		{"hostile_200_records_verdict", milliseconds(took), "ms"},
	}
}

// audit asks about every image of a registry in random order. Several clients ask for
// one image at a time, like an audit.
func audit(ctx context.Context, s *scene) []figure {
	const n, repositories, clients = 5000, 200, 8
	s.made++
	images := make([]*ocitest.Image, n)
	for i := range images {
		images[i] = s.tenancy.NewImage(fmt.Sprintf("audit/app-%d", i%repositories))
	}
	mixed := slices.Clone(images)
	rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] }) //nolint:gosec // any order does
	ask := func(name string, signatures int) []figure {
		s.restart()
		before, began := s.calls("artifacts"), time.Now()
		var wait sync.WaitGroup
		for c := range clients {
			wait.Go(func() {
				for i := c; i < n; i += clients {
					if s.settled(ctx, mixed[i]) != (signatures > 0) {
						panic(fmt.Errorf("%s, with %d signatures: the verdict is wrong", mixed[i].Ref(), signatures))
					}
				}
			})
		}
		wait.Wait()
		return []figure{
			{"audit_" + name + "_calls", float64(s.calls("artifacts") - before), "calls"},
			{"audit_" + name + "_time", time.Since(began).Seconds(), "s"},
			{"audit_" + name + "_memory", must(s.provider.resident()), "MiB"},
		}
	}
	paged := func(limit int) {
		sw := s.cloud.Switches()
		sw.PageLimit = limit
		if err := s.cloud.SetSwitches(sw); err != nil {
			panic(err)
		}
	}
	paged(100)
	figures := ask("unsigned_no_latency", 0)
	defer s.slow()()
	s.sign(images)
	for _, signatures := range []int{1, 5} {
		if signatures > 1 {
			s.countersign(images, signatures-1)
		}
		for _, limit := range []int{100, 10} {
			paged(limit)
			figures = append(figures, ask(fmt.Sprintf("page_%d_signatures_%d", limit, signatures), signatures)...)
		}
	}
	return figures
}

// countersign adds signature records by keys that no policy allows. These are not
// verified.
func (s *scene) countersign(images []*ocitest.Image, times int) {
	sample := images[0].Sign(s.key, signing)
	for n := range times {
		for _, img := range images {
			rec := sample
			rec.ImageID, rec.KeyID = img.ID, fmt.Sprintf("%s%d", sample.KeyID[:len(sample.KeyID)-1], n)
			s.tenancy.Add(rec)
		}
	}
}

// outages measures recovery. A request for a new image follows each outage.
func outages(ctx context.Context, s *scene, lasting time.Duration) []figure {
	var figures []figure
	for _, outage := range []struct {
		name  string
		fault ocitest.Fault
	}{
		{"429", ocitest.Fault{Kind: ocitest.Status, Status: 429}},
		{"429_retry_after_1", ocitest.Fault{Kind: ocitest.Status, Status: 429, RetryAfter: "1"}},
		{"503", ocitest.Fault{Kind: ocitest.Status, Status: 503}},
		{"hang", ocitest.Fault{Kind: ocitest.Hang}},
	} {
		images := s.images(20+1, 3)
		outage.fault.Delay = ocitest.Duration(latency)
		over := s.tenancy.Fault(outage.fault) // the fault that was set first applies
		clear := s.slow()
		during, stop := context.WithTimeout(ctx, lasting)
		var wait sync.WaitGroup
		before := s.calls("")
		for _, img := range images[:20] {
			wait.Go(func() {
				for during.Err() == nil {
					if got, err := s.ask(ctx, s.questions(img)); err == nil && during.Err() == nil && got.signed > 0 {
						panic(errors.New("signed, though OCI did not answer"))
					}
				}
			})
		}
		<-during.Done()
		stop()
		calls := s.calls("") - before
		s.cloud.ClearFault(over)
		got := must(s.ask(ctx, s.questions(images[20])))
		wait.Wait()
		clear()
		figures = append(figures,
			figure{"outage_" + outage.name + "_next_signed", float64(got.signed), "answers"},
			figure{"outage_" + outage.name + "_next", milliseconds(got.took), "ms"})
		if outage.fault.Kind != ocitest.Hang { // the emulator counts only finished requests
			figures = append(figures, figure{"outage_" + outage.name + "_calls", float64(calls) / lasting.Seconds(), "calls/s"})
		}
	}
	return figures
}

// fill asks for many unknown images at once.
func fill(ctx context.Context, s *scene) []figure {
	const n, clients, part = 5000, 8, 1000
	images := s.images(n, n/10)
	s.yes(ctx, images[0])
	var figures []figure
	for from := 0; from < n; from += part {
		began := time.Now()
		var wait sync.WaitGroup
		for c := range clients {
			wait.Go(func() {
				for i := from + c; i < from+part; i += clients {
					s.yes(ctx, images[i])
				}
			})
		}
		wait.Wait()
		if from == 0 || from+part == n {
			name := map[bool]string{true: "first", false: "fifth"}[from == 0]
			figures = append(figures, figure{"fill_" + name + "_thousand", part / time.Since(began).Seconds(), "verdicts/s"})
		}
	}
	return append(figures,
		figure{"fill_fifth_of_first_thousand", figures[1].value / figures[0].value, "ratio"},
		figure{"fill_5000_memory", must(s.provider.resident()), "MiB"})
}

// steady simulates a cluster that creates 20 Pods a second with 10 images each, and an
// OCI that sometimes throttles or closes connections.
func steady(ctx context.Context, s *scene, lasting time.Duration) []figure {
	const pods, each = 20, 10
	images := s.images(4000, 400)
	s.yes(ctx, images[0])
	s.tenancy.Fault(ocitest.Fault{Operation: "*", Kind: ocitest.Status, Status: 429, Probability: 0.05, Delay: ocitest.Duration(latency)})
	s.tenancy.Fault(ocitest.Fault{Operation: "*", Kind: ocitest.Reset, Probability: 0.01, Delay: ocitest.Duration(latency)})
	defer s.cloud.ClearFaults()
	defer s.slow()()
	var (
		mu      sync.Mutex
		took    []time.Duration
		refused int
		wait    sync.WaitGroup
	)
	ticker := time.NewTicker(time.Second / pods)
	defer ticker.Stop()
	for pod := 0; pod < int(lasting.Seconds()*pods); pod++ {
		<-ticker.C
		from := pod * each % len(images)
		wait.Go(func() {
			got, err := s.ask(ctx, s.questions(images[from:from+each]...))
			mu.Lock()
			defer mu.Unlock()
			if took = append(took, got.took); err != nil || got.signed != each {
				refused++
			}
		})
	}
	wait.Wait()
	slices.Sort(took)
	return []figure{
		{"steady_requests", float64(len(took)), "requests"},
		{"steady_refused", float64(refused), "requests"},
		{"steady_p50", milliseconds(took[len(took)/2]), "ms"},
		{"steady_p99", milliseconds(took[len(took)*99/100]), "ms"},
		{"steady_slowest", milliseconds(took[len(took)-1]), "ms"},
	}
}

// warm asks for the same ten images again and again. First it asks as fast as a
// provider with one thread for Go code answers, then 2 000 times a second. It
// alternates with the server that answers a constant, so that other load on the machine
// affects both.
func warm(ctx context.Context, s *scene, dir string, config *tls.Config, lasting time.Duration) []figure {
	images := s.images(keysPerRequest, 1)
	s.yes(ctx, images...)
	constant, body, stop, err := startConstant(ctx, dir)
	if err != nil {
		panic(err)
	}
	const turns = 8
	var plain, ours measured
	for range turns {
		plain.add(must(constant.load(ctx, body, config, lasting/turns)))
		ours.add(must(s.provider.load(ctx, s.questions(images...), config, lasting/turns)))
	}
	if err := stop(); err != nil {
		panic(err)
	}
	figures := append(plain.figures("constant_answer_tls"), ours.figures("warm_verdict_tls")...)
	figures = append(figures,
		figure{"warm_verdict_tls_of_constant", ours.rate() / plain.rate(), "ratio"},
		figure{"cores", float64(runtime.NumCPU()), "cores"})

	const rate = 2000
	within := func(le string) float64 {
		return must(s.provider.metric(ctx, `oke_sign_request_duration_seconds_bucket{endpoint="signatures",outcome="answered",le="`+le+`"}`))
	}
	fast, all := within("0.0005"), within("+Inf")
	body = s.questions(images[0])
	var wait sync.WaitGroup
	due := make(chan struct{}, rate)
	for range 16 {
		wait.Go(func() {
			for range due {
				must(s.ask(ctx, body))
			}
		})
	}
	began := time.Now()
	for n := 0; time.Since(began) < lasting; time.Sleep(time.Millisecond) {
		for ; n < int(time.Since(began).Seconds()*rate); n++ {
			due <- struct{}{}
		}
	}
	close(due)
	wait.Wait()
	fast, all = within("0.0005")-fast, within("+Inf")-all
	return append(figures,
		figure{"paced_requests", all / time.Since(began).Seconds(), "requests/s"},
		figure{"paced_within_500us_in_server", fast / all, "ratio"})
}
