package cmd_test

import (
	"io"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"
)

// otherRegistry VARIABLE NAME:TAG: a registry on loopback has this image. Its host is in
// the variable, and the digest of the image in VARIABLE_DIGEST.
func otherRegistry(ts *testscript.TestScript, _ bool, args []string) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	ts.Defer(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	to, err := name.ParseReference(host + "/" + args[1])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	img, err := random.Image(100, 1)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	if err := remote.Write(to, img); err != nil {
		ts.Fatalf("%v", err)
	}
	digest, err := img.Digest()
	if err != nil {
		ts.Fatalf("%v", err)
	}
	ts.Setenv(args[0], host)
	ts.Setenv(args[0]+"_DIGEST", digest.String())
}
