package cmd

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/image"
)

type registryTokenOptions struct {
	*connect.Session
	region image.Region
}

func newRegistryToken(s *connect.Session) *cobra.Command {
	o := &registryTokenOptions{Session: s}
	return &cobra.Command{
		Use:   "registry-token HOST",
		Short: "Print a token for docker login to OCI Registry",
		Long: `Print a token with which docker, podman and buildah sign in to OCI Registry with
your identity, as user BEARER_TOKEN. A pipeline pushes with the identity that it
signs with, and stores no auth token.

The token is a secret with all your rights. OCI lets it expire after a while.
Pipe it into the tool, as below, so that nothing shows it.`,
		Example: `  kubectl oke-sign registry-token iad.ocir.io |
    docker login --username BEARER_TOKEN --password-stdin iad.ocir.io`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
}

func (o *registryTokenOptions) validate(args []string) error {
	if len(args) != 1 {
		return cli.Usage("kubectl oke-sign registry-token takes one registry host", "for instance kubectl oke-sign registry-token iad.ocir.io")
	}
	ref, err := image.Parse(args[0] + "/namespace/repository:tag")
	if err != nil || ref.Region().IsZero() || ref.Host() != args[0] {
		return cli.Usage(fmt.Sprintf("%.120q is not a host of OCI Registry", args[0]), "for instance iad.ocir.io, or ocir.us-ashburn-1.oci.oraclecloud.com")
	}
	o.region = ref.Region()
	return o.ValidateFlags()
}

func (o *registryTokenOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	c, err := o.Connect(ctx)
	if err != nil {
		return err
	}
	token, err := c.Registry.AccessToken(ctx, o.region)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(o.Streams.Out, token+"\n"); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}
