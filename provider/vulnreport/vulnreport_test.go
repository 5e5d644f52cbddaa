package vulnreport_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

func at(minute int) time.Time { return time.Date(2021, 12, 21, 7, minute, 0, 0, time.UTC) }

func result(id, tag string, started, finished int) vulnreport.Result {
	return vulnreport.Result{ID: id, Tag: tag, Started: at(started), Finished: at(finished)}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	latest, v1 := vulnreport.Tag{Name: "latest", Since: at(10)}, vulnreport.Tag{Name: "v1", Since: at(5)}
	for name, tt := range map[string]struct {
		before, after []vulnreport.Tag
		results       []vulnreport.Result
		want          string // the id of a result, or a reason
	}{
		"after the tag was set":                       {[]vulnreport.Tag{latest}, []vulnreport.Tag{latest}, []vulnreport.Result{result("a", "latest", 11, 12)}, "a"},
		"the newest of several":                       {[]vulnreport.Tag{latest}, []vulnreport.Tag{latest}, []vulnreport.Result{result("a", "latest", 11, 12), result("b", "latest", 13, 14), result("c", "latest", 12, 15)}, "b"},
		"the newest under any tag":                    {[]vulnreport.Tag{latest, v1}, []vulnreport.Tag{v1, latest}, []vulnreport.Result{result("a", "latest", 11, 12), result("b", "v1", 13, 14)}, "b"},
		"of another tag that was set earlier":         {[]vulnreport.Tag{latest, v1}, []vulnreport.Tag{latest, v1}, []vulnreport.Result{result("a", "latest", 9, 9), result("b", "v1", 6, 7)}, "b"},
		"before the tag was set":                      {[]vulnreport.Tag{latest}, []vulnreport.Tag{latest}, []vulnreport.Result{result("a", "latest", 8, 9)}, "older-push"},
		"running when the tag was set":                {[]vulnreport.Tag{latest}, []vulnreport.Tag{latest}, []vulnreport.Result{result("a", "latest", 9, 11)}, "older-push"},
		"at the moment when the tag was set":          {[]vulnreport.Tag{latest}, []vulnreport.Tag{latest}, []vulnreport.Result{result("a", "latest", 10, 11)}, "older-push"},
		"the tag was removed during the calls":        {[]vulnreport.Tag{latest, v1}, []vulnreport.Tag{v1}, []vulnreport.Result{result("a", "latest", 11, 12)}, "not-scanned"},
		"the tag was removed and set again":           {[]vulnreport.Tag{latest}, []vulnreport.Tag{{Name: "latest", Since: at(13)}}, []vulnreport.Result{result("a", "latest", 11, 12)}, "older-push"},
		"the tag was removed and set again, new scan": {[]vulnreport.Tag{latest}, []vulnreport.Tag{{Name: "latest", Since: at(13)}}, []vulnreport.Result{result("a", "latest", 14, 15)}, "older-push"},
		"the tag was set during the calls":            {nil, []vulnreport.Tag{latest}, []vulnreport.Result{result("a", "latest", 11, 12)}, "older-push"},
		"a tag without a time":                        {[]vulnreport.Tag{{Name: "latest"}}, []vulnreport.Tag{{Name: "latest"}}, []vulnreport.Result{result("a", "latest", 11, 12)}, "older-push"},
		"a scan that ended before it started":         {[]vulnreport.Tag{latest}, []vulnreport.Tag{latest}, []vulnreport.Result{result("a", "latest", 12, 11)}, "older-push"},
		"results of another tag":                      {[]vulnreport.Tag{latest}, []vulnreport.Tag{latest}, []vulnreport.Result{result("a", "v1", 11, 12)}, "not-scanned"},
		"no result":                                   {[]vulnreport.Tag{latest}, []vulnreport.Tag{latest}, nil, "not-scanned"},
		"no tag":                                      {nil, nil, []vulnreport.Result{result("a", "latest", 11, 12)}, "no-tag"},
		"the tag was removed":                         {[]vulnreport.Tag{latest}, nil, []vulnreport.Result{result("a", "latest", 11, 12)}, "no-tag"},
		"no tag, no result":                           {nil, nil, nil, "no-tag"},
	} {
		got, unknown := vulnreport.Choose(tt.before, tt.after, tt.results)
		if text := got.ID + string(unknown.Reason); text != tt.want {
			t.Errorf("%s: %s, want %s", name, text, tt.want)
		}
		if unknown.Known || (got.ID == "") != (unknown.Detail != "") {
			t.Errorf("%s: %+v", name, unknown)
		}
	}
}

// registry is OCI behind its API. It knows which image each scan has read.
type registry struct {
	clock   int
	tags    map[string]string            // to images
	since   map[string]map[string]int    // by image and tag
	images  map[string]bool              // images that are not deleted
	running map[string]map[string]string // the image that each scan reads, by tag and start
	results []vulnreport.Result
	saw     map[string]string // image by result
}

func (r *registry) push(image, tag string) {
	r.images[image] = true
	if r.tags[tag] == image {
		return // no change
	}
	if old := r.tags[tag]; old != "" {
		delete(r.since[old], tag)
	}
	if r.since[image] == nil {
		r.since[image] = make(map[string]int)
	}
	r.tags[tag], r.since[image][tag] = image, r.clock
}

func (r *registry) untag(tag string) {
	if old := r.tags[tag]; old != "" {
		delete(r.since[old], tag)
		delete(r.tags, tag)
	}
}

func (r *registry) drop(image string) {
	for tag := range r.since[image] {
		r.untag(tag)
	}
	delete(r.images, image)
}

func (r *registry) look(image string) []vulnreport.Tag {
	var tags []vulnreport.Tag
	for tag, since := range r.since[image] {
		tags = append(tags, vulnreport.Tag{Name: tag, Since: time.Unix(int64(since), 0)})
	}
	return tags
}

// live makes one event. Each event takes some time.
func (r *registry) live(random *rand.Rand) {
	r.clock += random.IntN(3)
	image, tag := fmt.Sprintf("image-%d", random.IntN(4)), fmt.Sprintf("tag-%d", random.IntN(3))
	switch random.IntN(8) {
	case 0, 1:
		r.push(image, tag)
	case 2:
		r.untag(tag)
	case 3:
		r.drop(image)
	case 4, 5: // a scan starts, and reads the image of its tag
		if seen := r.tags[tag]; seen != "" {
			if r.running[tag] == nil {
				r.running[tag] = make(map[string]string)
			}
			r.running[tag][fmt.Sprint(r.clock)] = seen
		}
	default: // a scan ends
		for start, seen := range r.running[tag] {
			var started int64
			if _, err := fmt.Sscan(start, &started); err != nil {
				panic(err)
			}
			id := fmt.Sprintf("result-%d", len(r.results))
			r.results = append(r.results, vulnreport.Result{ID: id, Tag: tag, Started: time.Unix(started, 0), Finished: time.Unix(int64(r.clock), 0)})
			r.saw[id] = seen
			delete(r.running[tag], start)
			break
		}
	}
}

// TestChooseNeverTakesAnothersResult makes random pushes, retags, deletions and
// scans, some of them during the calls. It compares Choose's result with the image
// that each scan has read. Choose must not say unknown if one scan is certainly of
// the image.
func TestChooseNeverTakesAnothersResult(t *testing.T) {
	t.Parallel()
	const games, moves = 3000, 60
	known, older := 0, 0
	for seed := range uint64(games) {
		random := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // a game
		r := &registry{tags: map[string]string{}, since: map[string]map[string]int{}, images: map[string]bool{}, running: map[string]map[string]string{}, saw: map[string]string{}}
		for range moves {
			r.live(random)
			image := fmt.Sprintf("image-%d", random.IntN(4))
			before := r.look(image)
			quiet := random.IntN(2) == 0
			if !quiet {
				r.live(random)
			}
			results := slices.Clone(r.results)
			if !quiet {
				r.live(random)
			}
			after := r.look(image)
			random.Shuffle(len(results), func(i, j int) { results[i], results[j] = results[j], results[i] })
			got, unknown := vulnreport.Choose(before, after, results)
			if got.ID != "" && r.saw[got.ID] != image {
				t.Fatalf("game %d: for %s it chose %+v, which has read %s", seed, image, got, r.saw[got.ID])
			}
			var newest vulnreport.Result
			for _, result := range results {
				i := slices.IndexFunc(after, func(tag vulnreport.Tag) bool { return tag.Name == result.Tag && result.Started.After(tag.Since) })
				if quiet && i >= 0 && result.Started.After(newest.Started) {
					newest = result
				}
			}
			if newest.ID != "" && (got.ID == "" || got.Started.Before(newest.Started)) {
				t.Fatalf("game %d: for %s it chose %+v %+v, but %+v is newer", seed, image, got, unknown, newest)
			}
			if got.ID != "" {
				known++
			} else if unknown.Reason == vulnreport.OlderPush {
				older++
			}
		}
	}
	if known < games || older < games {
		t.Errorf("%d known and %d of older pushes in %d games: the games prove too little", known, older, games)
	}
}

func TestSummarize(t *testing.T) {
	t.Parallel()
	of := result("ocid", "latest", 11, 12)
	r := vulnreport.Summarize(of, []vulnreport.Problem{
		{"CVE-3", vulnreport.Low}, {"CVE-2", vulnreport.High}, {"CVE-1", vulnreport.Critical}, {"CVE-3", vulnreport.Medium}, {"CVE-3", vulnreport.Low}, {"", vulnreport.Low}, {"a\x1b[2J", vulnreport.Low},
	})
	want := vulnreport.Report{
		Known: true, ScannedAt: "2021-12-21T07:12:00Z", Result: "ocid",
		Counts:   map[vulnreport.Severity]int{vulnreport.Critical: 1, vulnreport.High: 1, vulnreport.Medium: 1, vulnreport.Low: 2},
		Problems: []vulnreport.Problem{{"CVE-1", vulnreport.Critical}, {"CVE-2", vulnreport.High}, {"CVE-3", vulnreport.Medium}, {"(without a name)", vulnreport.Low}, {"a?[2J", vulnreport.Low}},
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}

	var many []vulnreport.Problem
	for i := range 100_000 {
		many = append(many, vulnreport.Problem{ID: fmt.Sprintf("CVE-%d-%s", i, strings.Repeat("x", 200)), Severity: vulnreport.Severities()[i%4]})
	}
	r = vulnreport.Summarize(of, many)
	if r.Counts[vulnreport.Low] != 25_000 || len(r.Problems) != vulnreport.MaxProblems || r.Problems[0].Severity != vulnreport.Critical || len(r.Problems[99].ID) > 64 {
		t.Errorf("%d problems, %v, %v", len(r.Problems), r.Counts, r.Problems[0])
	}
	if text, err := json.Marshal(r); err != nil || len(text) > 16<<10 {
		t.Errorf("%d bytes %v", len(text), err)
	}
}

// TestJSON checks the contract with the policy; see policies/okescannedimages.
func TestJSON(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]vulnreport.Report{
		`{"known":false,"reason":"not-scanned","detail":"no scan since it was pushed"}`:                                       {Reason: vulnreport.NotScanned, Detail: "no scan since it was pushed", RetryAfter: time.Minute},
		`{"known":true,"scannedAt":"2021-12-21T07:12:00Z","counts":{"CRITICAL":0,"HIGH":0,"LOW":0,"MEDIUM":0},"problems":[]}`: vulnreport.Summarize(result("a", "latest", 11, 12), nil),
		`{"known":true,"scannedAt":"2021-12-21T07:12:00Z","counts":{"CRITICAL":1,"HIGH":0,"LOW":0,"MEDIUM":0},"problems":[{"id":"CVE-2021-44228","severity":"CRITICAL"}]}`: vulnreport.Summarize(
			result("a", "latest", 11, 12), []vulnreport.Problem{{"CVE-2021-44228", vulnreport.Critical}}),
	} {
		got, err := json.Marshal(r)
		if err != nil || string(got) != want {
			t.Errorf("%s %v, want %s", got, err, want)
		}
	}
}

func TestParseSeverity(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]vulnreport.Severity{"CRITICAL": vulnreport.Critical, "HIGH": vulnreport.High, "MEDIUM": vulnreport.Medium, "LOW": vulnreport.Low, "NONE": "", "": vulnreport.Critical, "Low": vulnreport.Critical, "SEVERE": vulnreport.Critical} {
		got, counts := vulnreport.ParseSeverity(text)
		if got != want || counts != (text != "NONE") {
			t.Errorf("%q: %q %t, want %q", text, got, counts, want)
		}
	}
	if !vulnreport.Critical.AtLeast(vulnreport.High) || !vulnreport.High.AtLeast(vulnreport.High) || vulnreport.Medium.AtLeast(vulnreport.High) {
		t.Error("the order of severities")
	}
}
