package ocitest_test

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

const pss256 = "SHA_256_RSA_PKCS_PSS"

// with returns the switches of the preset under test, with changes.
func with(change func(*ocitest.Switches)) *ocitest.Switches {
	s := cloud.Switches()
	change(&s)
	return &s
}

func TestPages(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change    func(*ocitest.Switches)
		limit     *int
		wantSizes []int
		wantCode  string
	}{
		"pages of the service's size": {
			change:    func(s *ocitest.Switches) { s.PageLimit, s.EmptyPages = 10, false },
			wantSizes: []int{10, 10, 5},
		},
		"smaller pages": {
			change:    func(s *ocitest.Switches) { s.PageLimit, s.EmptyPages = 10, false },
			limit:     common.Int(9),
			wantSizes: []int{9, 9, 7},
		},
		"all in one": {
			change:    func(s *ocitest.Switches) { s.PageLimit, s.EmptyPages = 100, false },
			wantSizes: []int{25},
		},
		"empty pages before full ones": {
			change:    func(s *ocitest.Switches) { s.PageLimit, s.EmptyPages = 10, true },
			wantSizes: []int{0, 10, 0, 10, 0, 5},
		},
		"pages above the limit, clamped": {
			change:    func(s *ocitest.Switches) { s.PageLimit, s.EmptyPages, s.OverLimit = 10, false, "clamp" },
			limit:     common.Int(50),
			wantSizes: []int{10, 10, 5},
		},
		"pages above the limit, rejected": {
			change:   func(s *ocitest.Switches) { s.PageLimit, s.EmptyPages, s.OverLimit = 10, false, "400" },
			limit:    common.Int(50),
			wantCode: "InvalidParameter",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(tt.change)})
			c := newClients(t, tenancy.Admin())
			image := tenancy.NewImage("web")
			var want []string
			for i := range 25 {
				want = append(want, tenancy.Add(ocitest.Record{
					ImageID: image.ID, KeyID: "k", KeyVersionID: strconv.Itoa(i), Message: "m", Signature: "s", Algorithm: pss256,
				})...)
			}
			slices.Reverse(want) // newest first
			req := artifacts.ListContainerImageSignaturesRequest{
				CompartmentId: &tenancy.ID, Limit: tt.limit, SortBy: artifacts.ListContainerImageSignaturesSortByTimecreated,
			}
			var got []string
			var sizes []int
			for {
				res, err := c.artifacts.ListContainerImageSignatures(context.Background(), req)
				if tt.wantCode != "" {
					if got := code(t, err); got != tt.wantCode {
						t.Errorf("code %q, want %q", got, tt.wantCode)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				sizes = append(sizes, len(res.Items))
				for _, s := range res.Items {
					got = append(got, *s.Id)
				}
				if *res.RemainingItemsCount != len(want)-len(got) {
					t.Errorf("after %d items %d remain, want %d", len(got), *res.RemainingItemsCount, len(want)-len(got))
				}
				if res.OpcNextPage == nil {
					break
				}
				req.Page = res.OpcNextPage
			}
			if diff := cmp.Diff(tt.wantSizes, sizes); diff != "" {
				t.Errorf("page sizes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("signatures (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPageTokensAreBoundToTheirList(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.PageLimit = 1 })})
	c := newClients(t, tenancy.Admin())
	tenancy.NewImage("one")
	tenancy.NewImage("two")
	first, err := c.artifacts.ListContainerImages(context.Background(), artifacts.ListContainerImagesRequest{CompartmentId: &tenancy.ID})
	if err != nil {
		t.Fatal(err)
	}
	if first.OpcNextPage == nil {
		t.Fatal("no next page")
	}
	_, err = c.artifacts.ListContainerImages(context.Background(), artifacts.ListContainerImagesRequest{
		CompartmentId: &tenancy.ID, RepositoryName: common.String("two"), Page: first.OpcNextPage,
	})
	if got := code(t, err); got != "InvalidParameter" {
		t.Errorf("code %q with a page of another list, want InvalidParameter", got)
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		unsaid string
		by     artifacts.ListContainerImagesSortByEnum
		order  artifacts.ListContainerImagesSortOrderEnum
		want   []string
	}{
		"no order requested, newest first": {unsaid: "DESC", want: []string{"b", "c", "a"}},
		"no order requested, oldest first": {unsaid: "ASC", want: []string{"a", "c", "b"}},
		"times descend":                    {unsaid: "ASC", by: "TIMECREATED", want: []string{"b", "c", "a"}},
		"times ascending":                  {unsaid: "DESC", by: "TIMECREATED", order: "ASC", want: []string{"a", "c", "b"}},
		"names ascend":                     {unsaid: "DESC", by: "DISPLAYNAME", want: []string{"a", "b", "c"}},
		"names descending":                 {unsaid: "ASC", by: "DISPLAYNAME", order: "DESC", want: []string{"c", "b", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.Order, s.EmptyPages = tt.unsaid, false })})
			c := newClients(t, tenancy.Admin())
			for _, name := range []string{"a", "c", "b"} {
				tenancy.NewImage(name, "v1")
			}
			res, err := c.artifacts.ListContainerImages(context.Background(), artifacts.ListContainerImagesRequest{
				CompartmentId: &tenancy.ID, SortBy: tt.by, SortOrder: tt.order,
			})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, i := range res.Items {
				got = append(got, *i.RepositoryName)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := newClients(t, tenancy.Admin())
	key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
	web, other := tenancy.NewImage("project01/web", "v1"), tenancy.NewImage("project01/other")
	copied := web.CopyTo("web")
	ids := tenancy.Add(web.Sign(key, pss256), web.Sign(key, "SHA_512_RSA_PKCS_PSS"), other.Sign(key, pss256), copied.Sign(key, pss256))
	for name, tt := range map[string]struct {
		req  artifacts.ListContainerImageSignaturesRequest
		want []string
	}{
		"none":              {artifacts.ListContainerImageSignaturesRequest{}, ids},
		"image":             {artifacts.ListContainerImageSignaturesRequest{ImageId: &web.ID}, ids[:2]},
		"repository":        {artifacts.ListContainerImageSignaturesRequest{RepositoryId: &other.RepositoryID}, ids[2:3]},
		"repository's name": {artifacts.ListContainerImageSignaturesRequest{RepositoryName: common.String("web")}, ids[3:]},
		"prefix of a name": {
			artifacts.ListContainerImageSignaturesRequest{RepositoryName: common.String("project01/*")}, ids[:3],
		},
		"digest, in two repositories": {
			artifacts.ListContainerImageSignaturesRequest{ImageDigest: &web.Digest}, []string{ids[0], ids[1], ids[3]},
		},
		"digest in a repository": {
			artifacts.ListContainerImageSignaturesRequest{ImageDigest: &web.Digest, RepositoryName: common.String("web")}, ids[3:],
		},
		"algorithm": {artifacts.ListContainerImageSignaturesRequest{SigningAlgorithm: "SHA_512_RSA_PKCS_PSS"}, ids[1:2]},
		"key":       {artifacts.ListContainerImageSignaturesRequest{KmsKeyId: &key.ID}, ids},
		"a key version that signed nothing": {
			artifacts.ListContainerImageSignaturesRequest{KmsKeyVersionId: common.String("ocid1.keyversion.oc1..x")}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.req.CompartmentId = &tenancy.ID
			tt.req.SortBy, tt.req.SortOrder = "TIMECREATED", "ASC"
			var got []string
			for _, s := range listSignatures(t, c, tt.req) {
				got = append(got, *s.Id)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := newClients(t, tenancy.Admin())
	old := tenancy.NewImage("project01/web", "latest")
	image := tenancy.NewImage("project01/web", "v1", "latest")
	for uri, want := range map[string]string{
		"/project01/web@" + image.Digest:            image.ID,
		"/project01/web:v1":                         image.ID,
		"/project01/web:latest":                     image.ID,
		"/project01/web@" + old.Digest:              old.ID,
		"/project01/web:gone":                       "NotAuthorizedOrNotFound",
		"/project01/nothing:v1":                     "NotAuthorizedOrNotFound",
		"/project01/web":                            "InvalidParameter",
		"/project01/web:v1@" + image.Digest:         "InvalidParameter",
		"/Project01/web:v1":                         "InvalidParameter",
		"/project01/../project01/web:v1":            "InvalidParameter",
		"x/project01/web@" + image.Digest:           "NotAuthorizedOrNotFound",
		"/project01/web@sha256:" + image.Digest[8:]: "NotAuthorizedOrNotFound",
	} {
		t.Run(uri, func(t *testing.T) {
			t.Parallel()
			res, err := c.artifacts.LookupContainerImageByUri(context.Background(), artifacts.LookupContainerImageByUriRequest{
				LookupContainerImageByUriDetails: artifacts.LookupContainerImageByUriDetails{ImageUri: common.String(tenancy.Namespace + uri)},
			})
			got := code(t, err)
			if err == nil {
				got = *res.Id
			}
			if got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

func upload(c *clients, tenancy *ocitest.Tenancy, r ocitest.Record) (artifacts.CreateContainerImageSignatureResponse, error) {
	return c.artifacts.CreateContainerImageSignature(context.Background(), artifacts.CreateContainerImageSignatureRequest{
		CreateContainerImageSignatureDetails: artifacts.CreateContainerImageSignatureDetails{
			CompartmentId: &tenancy.ID, ImageId: &r.ImageID, KmsKeyId: &r.KeyID, KmsKeyVersionId: &r.KeyVersionID, Message: &r.Message,
			Signature: &r.Signature, SigningAlgorithm: artifacts.CreateContainerImageSignatureDetailsSigningAlgorithmEnum(r.Algorithm),
		},
	})
}

func TestUploadChecks(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change  func(*ocitest.Record, *ocitest.Image)
		careful string // the code where the registry validates uploads
	}{
		"a genuine record": {func(*ocitest.Record, *ocitest.Image) {}, ""},
		"a genuine record of another image": {
			func(r *ocitest.Record, other *ocitest.Image) { r.ImageID = other.ID }, "InvalidParameter",
		},
		"a message that names another version": {
			func(r *ocitest.Record, _ *ocitest.Image) { r.KeyVersionID = "ocid1.keyversion.oc1.iad.x" }, "InvalidParameter",
		},
		"a message that is not JSON": {
			func(r *ocitest.Record, _ *ocitest.Image) {
				r.Message = base64.StdEncoding.EncodeToString([]byte("hello"))
			}, "InvalidParameter",
		},
		"a message that is not base64": {
			func(r *ocitest.Record, _ *ocitest.Image) { r.Message = "!" }, "InvalidParameter",
		},
	} {
		for _, careful := range []bool{true, false} {
			t.Run(name+", validated "+strconv.FormatBool(careful), func(t *testing.T) {
				t.Parallel()
				tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.UploadValidation = careful })})
				c := newClients(t, tenancy.Admin())
				key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
				record := tenancy.NewImage("web").Sign(key, pss256)
				tt.change(&record, tenancy.NewImage("other"))
				want := ""
				if careful {
					want = tt.careful
				}
				_, err := upload(c, tenancy, record)
				if got := code(t, err); got != want {
					t.Errorf("code %q, want %q", got, want)
				}
			})
		}
	}
}

func TestUploadTwice(t *testing.T) {
	t.Parallel()
	for _, twice := range []bool{true, false} {
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.UploadTwice = twice })})
		c := newClients(t, tenancy.Admin())
		record := tenancy.NewImage("web").Sign(tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048), pss256)
		if _, err := upload(c, tenancy, record); err != nil {
			t.Fatal(err)
		}
		want := "NotAuthorizedOrResourceAlreadyExists"
		if twice {
			want = ""
		}
		_, err := upload(c, tenancy, record)
		if got := code(t, err); got != want {
			t.Errorf("second upload, allowed %t: code %q, want %q", twice, got, want)
		}
	}
}

func TestUploadCompartment(t *testing.T) {
	t.Parallel()
	for _, checked := range []bool{true, false} {
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.UploadCompartment = checked })})
		c := newClients(t, tenancy.Admin())
		below := tenancy.NewCompartment("below", "")
		tenancy.NewRepository("web", below)
		image := tenancy.NewImage("web")
		got, err := upload(c, tenancy, image.Sign(tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048), pss256))
		if checked {
			if got := code(t, err); got != "NotAuthorizedOrNotFound" {
				t.Errorf("code %q with the wrong compartment, want NotAuthorizedOrNotFound", got)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if *got.CompartmentId != below {
			t.Errorf("the record is in %s, want the image's compartment %s", *got.CompartmentId, below)
		}
	}
}

func TestRetryTokens(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := newClients(t, tenancy.Admin())
	create := func(name, token string) (string, error) {
		res, err := c.artifacts.CreateContainerRepository(context.Background(), artifacts.CreateContainerRepositoryRequest{
			CreateContainerRepositoryDetails: artifacts.CreateContainerRepositoryDetails{CompartmentId: &tenancy.ID, DisplayName: &name},
			OpcRetryToken:                    &token,
		})
		if err != nil {
			return "", err
		}
		return *res.Id, nil
	}
	first, err := create("one", "token")
	if err != nil {
		t.Fatal(err)
	}
	again, err := create("one", "token")
	if err != nil {
		t.Fatal(err)
	}
	if first != again {
		t.Errorf("the same token made %s and %s", first, again)
	}
	_, err = create("two", "token")
	if got := code(t, err); got != "InvalidatedRetryToken" {
		t.Errorf("code %q with the token for another request, want InvalidatedRetryToken", got)
	}
	_, err = create("one", "fresh")
	if got := code(t, err); got != "NotAuthorizedOrResourceAlreadyExists" {
		t.Errorf("code %q with a fresh token, want NotAuthorizedOrResourceAlreadyExists", got)
	}
}

func TestEtags(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := newClients(t, tenancy.Admin())
	image := tenancy.NewImage("web")
	id := tenancy.Add(image.Sign(tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048), pss256))[0]
	got, err := c.artifacts.GetContainerImageSignature(ctx, artifacts.GetContainerImageSignatureRequest{ImageSignatureId: &id})
	if err != nil {
		t.Fatal(err)
	}
	update := func(tag, value string) (*string, error) {
		res, err := c.artifacts.UpdateContainerImageSignature(ctx, artifacts.UpdateContainerImageSignatureRequest{
			ImageSignatureId: &id, IfMatch: &tag,
			UpdateContainerImageSignatureDetails: artifacts.UpdateContainerImageSignatureDetails{FreeformTags: map[string]string{"by": value}},
		})
		return res.Etag, err
	}
	newer, err := update(*got.Etag, "first")
	if err != nil {
		t.Fatal(err)
	}
	_, err = update(*got.Etag, "second")
	if got := code(t, err); got != "NoEtagMatch" {
		t.Errorf("code %q with an old etag, want NoEtagMatch", got)
	}
	_, err = c.artifacts.DeleteContainerImageSignature(ctx, artifacts.DeleteContainerImageSignatureRequest{ImageSignatureId: &id, IfMatch: got.Etag})
	if got := code(t, err); got != "NoEtagMatch" {
		t.Errorf("code %q deleting with an old etag, want NoEtagMatch", got)
	}
	if _, err := c.artifacts.DeleteContainerImageSignature(ctx, artifacts.DeleteContainerImageSignatureRequest{ImageSignatureId: &id, IfMatch: newer}); err != nil {
		t.Error(err)
	}
}

func TestDeletedRecords(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for setting, want := range map[string][]string{"gone": nil, "listed": {"DELETED"}} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.DeletedRecords = setting })})
			c := newClients(t, tenancy.Admin())
			id := tenancy.Add(tenancy.NewImage("web").Sign(tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048), pss256))[0]
			if _, err := c.artifacts.DeleteContainerImageSignature(ctx, artifacts.DeleteContainerImageSignatureRequest{ImageSignatureId: &id}); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range listSignatures(t, c, artifacts.ListContainerImageSignaturesRequest{CompartmentId: &tenancy.ID}) {
				got = append(got, string(s.LifecycleState))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			_, err := c.artifacts.DeleteContainerImageSignature(ctx, artifacts.DeleteContainerImageSignatureRequest{ImageSignatureId: &id})
			if code(t, err) == "" {
				t.Error("deleted twice")
			}
		})
	}
}

func TestDeletedImagesCanBeRestored(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.DeletedRecords = "gone" })})
	c := newClients(t, tenancy.Admin())
	image := tenancy.NewImage("web", "v1")
	tenancy.Add(image.Sign(tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048), pss256))
	count := func() int {
		return len(listSignatures(t, c, artifacts.ListContainerImageSignaturesRequest{CompartmentId: &tenancy.ID}))
	}
	if _, err := c.artifacts.DeleteContainerImage(ctx, artifacts.DeleteContainerImageRequest{ImageId: &image.ID}); err != nil {
		t.Fatal(err)
	}
	if got := count(); got != 0 {
		t.Errorf("%d signatures of a deleted image, want 0", got)
	}
	restored, err := c.artifacts.RestoreContainerImage(ctx, artifacts.RestoreContainerImageRequest{
		ImageId: &image.ID, RestoreContainerImageDetails: artifacts.RestoreContainerImageDetails{Version: common.String("v2")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if *restored.Version != "v2" || *restored.Id != image.ID {
		t.Errorf("restored %s as %s, want %s as v2", *restored.Id, *restored.Version, image.ID)
	}
	if got := count(); got != 1 {
		t.Errorf("%d signatures of a restored image, want 1", got)
	}
}

func TestConfigurationAndRepositories(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.EmptyPages = false })})
	c := newClients(t, tenancy.Admin())
	got, err := c.artifacts.GetContainerConfiguration(ctx, artifacts.GetContainerConfigurationRequest{CompartmentId: &tenancy.ID})
	if err != nil {
		t.Fatal(err)
	}
	if *got.Namespace != tenancy.Namespace || !*got.IsRepositoryCreatedOnFirstPush {
		t.Errorf("configuration %v, want namespace %s", got, tenancy.Namespace)
	}
	if _, err := c.artifacts.UpdateContainerConfiguration(ctx, artifacts.UpdateContainerConfigurationRequest{
		CompartmentId: &tenancy.ID, UpdateContainerConfigurationDetails: artifacts.UpdateContainerConfigurationDetails{IsRepositoryCreatedOnFirstPush: common.Bool(false)},
	}); err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-time.Second)
	made, err := c.artifacts.CreateContainerRepository(ctx, artifacts.CreateContainerRepositoryRequest{
		CreateContainerRepositoryDetails: artifacts.CreateContainerRepositoryDetails{CompartmentId: &tenancy.ID, DisplayName: common.String("web"), IsPublic: common.Bool(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if made.TimeCreated.Before(before) || made.TimeCreated.After(time.Now()) {
		t.Errorf("creation time %s, want now", made.TimeCreated)
	}
	tenancy.NewImage("web", "v1")
	list, err := c.artifacts.ListContainerRepositories(ctx, artifacts.ListContainerRepositoriesRequest{CompartmentId: &tenancy.ID, DisplayName: common.String("w*"), IsPublic: common.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || *list.RepositoryCount != 1 || *list.ImageCount != 1 || *list.Items[0].ImageCount != 1 || *list.Items[0].Namespace != tenancy.Namespace {
		t.Errorf("repositories %v, want web with one image", list)
	}
	if _, err := c.artifacts.DeleteContainerRepository(ctx, artifacts.DeleteContainerRepositoryRequest{RepositoryId: made.Id}); err != nil {
		t.Fatal(err)
	}
	_, err = c.artifacts.LookupContainerImageByUri(ctx, artifacts.LookupContainerImageByUriRequest{
		LookupContainerImageByUriDetails: artifacts.LookupContainerImageByUriDetails{ImageUri: common.String(tenancy.Namespace + "/web:v1")},
	})
	if got := code(t, err); got != "NotAuthorizedOrNotFound" {
		t.Errorf("code %q for an image of a deleted repository, want NotAuthorizedOrNotFound", got)
	}
}
