package ociauth

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/oke-sign/oke-sign/provider/oci"
)

// SignIn finds out the identity and returns a client for it. It sends no request to
// an OCI service, except to get a first token: a workload asks its cluster, an instance
// its metadata service, a federated resource OCI's auth service, and OIDC the identity
// domain.
func SignIn(ctx context.Context, cfg Config) (*oci.Client, error) {
	cfg.Client = cfg.Client.WithDefaults()
	if cfg.Kind == "" {
		var err error
		if cfg.Kind, err = cfg.usual(); err != nil {
			return nil, err
		}
	}
	transport, err := oci.NewTransport(cfg.Client)
	if err != nil {
		return nil, err
	}
	return signIn(ctx, cfg, transport)
}

// signIn signs in over a transport that the client shares.
func signIn(ctx context.Context, cfg Config, transport *http.Transport) (*oci.Client, error) {
	id, err := identify(ctx, cfg, transport)
	if err != nil {
		return nil, err
	}
	if id.AuthKind == "" {
		id.AuthKind = cfg.Kind
	}
	return oci.New(id, transport, cfg.Client), nil
}

func identify(ctx context.Context, cfg Config, transport *http.Transport) (oci.Identity, error) {
	switch cfg.Kind {
	case KindAPIKey, KindSecurityToken:
		return fromProfile(cfg)
	case KindInstancePrincipal:
		return fromInstance(ctx, cfg, transport)
	case KindInstanceOBOUser:
		return fromDelegation(ctx, cfg, transport)
	case KindResourcePrincipal:
		return fromResource(ctx, cfg, transport)
	case KindOKEWorkloadIdentity:
		return fromWorkload(ctx, cfg)
	case KindOIDC:
		return fromOIDC(ctx, cfg, transport)
	}
	return oci.Identity{}, fmt.Errorf("no such auth kind: %.40q (want %s)", cfg.Kind, strings.Join(Kinds(), ", "))
}
