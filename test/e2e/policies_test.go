package e2e_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/test/ociclient"
)

// dockerHub is an image of another registry, by tag and by digest.
const (
	dockerHub       = "nginx:latest"
	dockerHubDigest = "docker.io/library/nginx@sha256:0d17b565c37bcbd895e9d92315a05c1c3c9a29f762b011a10c54a66cd53c9b31"
)

func breakGlass(value string) object {
	return object{"oracle.image-policy.k8s.io/break-glass": value}
}

// A signature by any allowed key admits an image. Nothing else does.
func TestSignedByOneOfTheKeys(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	unsigned, moved := s.push(t, "unsigned"), s.push(t, "moved")
	good, several := s.signed(t, "good", imageKey), s.signed(t, "several", releaseKey, imageKey)
	// A genuine signature of another image does not count for this image. It does
	// not hide other signatures.
	move(t, good, moved)
	move(t, good, several)
	s.enforce(t, standard(signedBy("", imageKey))...)
	s.try(t, map[string]trial{
		"signed":                     {image: good},
		"signed by several":          {image: several},
		"not signed":                 {image: unsigned, want: "unsigned"},
		"signed by another":          {image: s.signed(t, "other", releaseKey), want: "key-not-allowed"},
		"signature of another":       {image: moved, want: "wrong-image"},
		"by tag":                     {image: byTag(good), want: "no-digest"},
		"not there":                  {image: strings.Replace(good, "/good@", "/none@", 1), want: "image-not-found"},
		"of another registry":        {image: dockerHubDigest, want: "not-oci-registry"},
		"ambiguous":                  {image: strings.Replace(good, "iad.ocir.io", "IAD.ocir.io", 1), want: "ambiguous"},
		"break-glass":                {image: unsigned, annotations: breakGlass("true")},
		"break-glass by tag":         {image: byTag(unsigned), annotations: breakGlass("true")},
		"break-glass of another":     {image: dockerHub, annotations: breakGlass("true"), want: "not-oci-registry"},
		"break-glass with no effect": {image: unsigned, annotations: breakGlass("yes"), want: "unsigned"},
		"under the registry's alias": {image: strings.Replace(good, "iad.ocir.io", "ocir.us-ashburn-1.oci.oraclecloud.com", 1)},
	})
}

// move attaches a genuine signature of one image to another.
func move(t *testing.T, from, to string) {
	t.Helper()
	records, err := cloud.Records(t.Context(), from)
	if err == nil && len(records) == 0 {
		t.Fatalf("no record of %s", from)
	}
	if err == nil {
		records[0].Image = to
		err = cloud.Attach(t.Context(), records[0])
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The OKE image policy admits everything if it has no keys.
func TestFiveKeysAndNoSixth(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	keys := []ociclient.Key{imageKey, releaseKey}
	for _, name := range []string{"third", "fourth", "fifth", "sixth"} {
		key, err := cloud.NewKey(t.Context(), vault, s.name+"-"+name)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	s.enforce(t, standard(signedBy("", keys[:5]...))...)
	s.try(t, map[string]trial{
		"the first": {image: s.signed(t, "first", keys[0])},
		"the fifth": {image: s.signed(t, "fifth", keys[4])},
		"the sixth": {image: s.signed(t, "sixth", keys[5]), want: "key-not-allowed"},
	})
	for _, c := range standard(signedBy("", keys...)) {
		s.apply(t, s.manifest(c)).fails(t, "spec.parameters.keys", "Too many: 6: must have at most 5 items")
	}
}

// The API server rejects mistakes in a constraint. If told to ignore them, the
// constraint still admits nothing. CVE-2025-29778: Kyverno ignored a parameter that it
// could not use.
func TestMisspelt(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	misspelt := s.manifest(constraint{kind: policies.SignedImages, on: pods, parameters: "{kesy: [" + imageKey.ID + "]}"})
	s.apply(t, misspelt).fails(t, `unknown field "spec.parameters.kesy"`)
	s.pipe(t, misspelt, "apply", "--validate=ignore", "-f", "-").fails(t, "spec.parameters.keys", "Required value")
	for _, keys := range []string{"{keys: null}", "{keys: " + imageKey.ID + "}", "{keys: [image-key]}"} {
		c := constraint{kind: policies.SignedImages, on: pods, parameters: keys}
		s.pipe(t, s.manifest(c), "apply", "--validate=ignore", "-f", "-").fails(t, "spec.parameters.keys")
	}

	good := s.signed(t, "good", imageKey)
	standard := standard(signedBy("", imageKey))
	for _, c := range standard {
		text := strings.Replace(s.manifest(c), "parameters:", "parameter:", 1)
		s.apply(t, text).fails(t, `unknown field "spec.parameter"`)
		s.pipe(t, text, "apply", "--validate=ignore", "-f", "-").succeeds(t)
	}
	eventually(t, soon, "Gatekeeper enforces constraints without parameters", func() error { return s.enforced(t) })
	s.try(t, map[string]trial{"signed": {image: good, want: "no-keys"}})
}

// An empty list of keys admits every image of OCI Registry, as on OCI Kubernetes
// Engine. A second constraint must confirm it.
func TestNoKeys(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	unsigned := s.push(t, "unsigned")
	s.enforce(t, standard("{keys: []}")...)
	s.try(t, map[string]trial{
		"unsigned":            {image: unsigned},
		"by tag":              {image: byTag(unsigned)},
		"of another registry": {image: dockerHub, want: "not-oci-registry"},
		"ambiguous":           {image: strings.Replace(unsigned, ".io/", ".io:443/", 1), want: "ambiguous"},
	})
	s.enforce(t, constraint{kind: policies.SignedImages, action: "warn", on: pods, parameters: "{keys: [], report: true}"})
	s.applyAll(t, workload("Pod", "reported", unsigned, nil)).succeeds(t).
		says(t, "Warning: ", "containers/pod: no-key-listed: ", unsigned)
}

func TestOtherRegistries(t *testing.T) {
	t.Parallel()
	t.Run("allowed", func(t *testing.T) {
		t.Parallel()
		s := newSpace(t)
		unsigned := s.push(t, "unsigned")
		s.enforce(t, standard(signedBy(", otherRegistries: Allow", imageKey))...)
		s.try(t, map[string]trial{
			"of another registry": {image: dockerHub},
			"a look-alike":        {image: strings.Replace(unsigned, "iad.ocir.io", "iad.ocir.io.example.com", 1)},
			"unsigned":            {image: unsigned, want: "unsigned"},
			"ambiguous":           {image: strings.Replace(unsigned, "iad.ocir.io", "iad.ocir.io.", 1), want: "ambiguous"},
		})
	})
	t.Run("denied but for exemptions", func(t *testing.T) {
		t.Parallel()
		s := newSpace(t)
		unsigned := s.push(t, "unsigned")
		repository, _, _ := strings.Cut(unsigned, "@")
		exempt := ", exemptImages: [docker.io/library/nginx, " + repository + "]"
		s.enforce(t, standard(signedBy(exempt, imageKey))...)
		s.try(t, map[string]trial{
			"exempt":                {image: dockerHubDigest},
			"exempt of ours":        {image: unsigned},
			"beside it":             {image: s.push(t, "unsigned-too"), want: "unsigned"},
			"no host, no exemption": {image: dockerHub, want: "not-oci-registry"},
		})
	})
}

// These are both examples of Oracle's page: a complete digest is admitted, a tag is
// denied. CVE-2022-47633: two lookups of a tag may find two images, so only digests
// count. k8simagedigests of gatekeeper-library: its expression ends before the
// digest does.
func TestByDigest(t *testing.T) {
	t.Parallel()
	const (
		nginxLB = "phx.ocir.io/ansh81vru1zp/project01/ngnix-lb"
		digest  = "@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"
	)
	everywhere := map[string]trial{
		"by digest":             {image: nginxLB + digest},
		"by tag and digest":     {image: nginxLB + ":latest" + digest},
		"by tag":                {image: nginxLB + ":latest", want: "no-digest"},
		"by nothing":            {image: nginxLB, want: "no-digest"},
		"a digest cut short":    {image: nginxLB + digest[:40], want: "ambiguous"},
		"break-glass":           {image: nginxLB + ":latest", annotations: breakGlass("true")},
		"of another, by digest": {image: dockerHubDigest},
		"of another, by tag":    {image: dockerHub, want: "no-digest"},
	}
	ours := maps.Clone(everywhere)
	ours["of another, by tag"] = trial{image: dockerHub}
	for registries, trials := range map[string]map[string]trial{"All": everywhere, "OCIRegistry": ours} {
		t.Run(registries, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.enforce(t,
				constraint{kind: policies.ImageDigests, on: pods, parameters: "{registries: " + registries + "}"},
				constraint{kind: policies.ImageDigests, on: workloads, parameters: "{registries: " + registries + "}", action: "warn"},
			)
			s.try(t, trials)
		})
	}
}
