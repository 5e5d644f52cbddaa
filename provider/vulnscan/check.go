package vulnscan

import (
	"context"
	"errors"
	"fmt"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// Check is the Config of a vulnreport.Checker that asks OCI.
func Check(images *registry.Client, scans *Client) vulnreport.Config {
	return vulnreport.Config{
		Covers: func(ref image.Reference) bool { return images.Covers(ref.Region(), ref.Namespace()) },
		Image: func(ctx context.Context, ref image.Reference) (vulnreport.Image, error) {
			found, err := images.Image(ctx, ref)
			if errors.Is(err, registry.ErrNotFound) {
				return vulnreport.Image{}, fmt.Errorf("%w: %w", vulnreport.ErrNoImage, err)
			}
			img := vulnreport.Image{CompartmentID: found.CompartmentID}
			for _, v := range found.Versions {
				img.Tags = append(img.Tags, vulnreport.Tag{Name: v.Tag, Since: v.Since})
			}
			return img, err
		},
		Results: func(ctx context.Context, ref image.Reference, img vulnreport.Image, tag string) ([]vulnreport.Result, error) {
			return scans.Results(ctx, ref, img.CompartmentID, tag)
		},
		Problems: func(ctx context.Context, ref image.Reference, id string) ([]vulnreport.Problem, image.Region, error) {
			return scans.Problems(ctx, ref.Region(), id)
		},
	}
}
