package scanning

import (
	"context"
	"errors"
	"fmt"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/scan"
)

// Check is the Config of a scan.Checker that asks OCI.
func Check(images *registry.Client, scans *Client) scan.Config {
	return scan.Config{
		Covers: images.Covers,
		Image: func(ctx context.Context, ref image.Reference) (scan.Image, error) {
			found, err := images.Image(ctx, ref)
			if errors.Is(err, registry.ErrNotFound) {
				return scan.Image{}, fmt.Errorf("%w: %w", scan.ErrNoImage, err)
			}
			img := scan.Image{CompartmentID: found.CompartmentID}
			for _, v := range found.Versions {
				img.Tags = append(img.Tags, scan.Tag{Name: v.Tag, Since: v.Since})
			}
			return img, err
		},
		Results: func(ctx context.Context, ref image.Reference, img scan.Image, tag string) ([]scan.Result, error) {
			return scans.Results(ctx, ref, img.CompartmentID, tag)
		},
		Problems: func(ctx context.Context, ref image.Reference, id string) ([]scan.Problem, image.Region, error) {
			return scans.Problems(ctx, ref.Region(), id)
		},
	}
}
