package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// operate runs a command that changes the emulator at HTTPS_PROXY.
func operate(ctx context.Context, args []string, out, errOut io.Writer) error {
	at, err := emulator(os.Getenv("HTTPS_PROXY"))
	if err != nil {
		return err
	}
	if args[0] == "allow" {
		if len(args) == 1 {
			fmt.Fprintln(errOut, "oci-emulator: name the statements, such as oci-emulator allow 'Allow group ci to read repos in tenancy'") //nolint:errcheck // nowhere to report it
			return errUse
		}
		if err := post(ctx, at+"/_emulator/statements", map[string]any{"statements": args[1:]}, nil); err != nil {
			return err
		}
		fmt.Fprintf(out, "%d added\n", len(args)-1) //nolint:errcheck // nowhere to report it
		return nil
	}
	if len(args) > 2 {
		fmt.Fprintln(errOut, "oci-emulator: auth-token takes one user") //nolint:errcheck // nowhere to report it
		return errUse
	}
	var login ocitest.Login
	if err := post(ctx, at+"/_emulator/auth-tokens", map[string]any{"user": append(args, "")[1]}, &login); err != nil {
		return err
	}
	fmt.Fprintln(out, login.Token)                                                                               //nolint:errcheck // nowhere to report it
	fmt.Fprintf(errOut, "Sign in with it: docker login %s -u %s --password-stdin\n", login.Registry, login.User) //nolint:errcheck // nowhere to report it
	return nil
}

// emulator returns the address of the emulator. Other proxies get no request.
func emulator(proxy string) (string, error) {
	const hint = "start oci-emulator, and source the file env in its --home"
	if proxy == "" {
		return "", errors.New("HTTPS_PROXY is not set: " + hint)
	}
	u, err := url.Parse(proxy)
	if err != nil || u.Scheme != "http" || !net.ParseIP(u.Hostname()).IsLoopback() {
		return "", fmt.Errorf("HTTPS_PROXY %.100q is not an emulator on loopback: %s", proxy, hint)
	}
	return "http://" + u.Host, nil
}

// post sends JSON to a page of the emulator, and reads the answer into into.
func post(ctx context.Context, page string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, page, bytes.NewReader(text))
	if err != nil {
		return err
	}
	direct := &http.Transport{DisableKeepAlives: true} // without HTTPS_PROXY
	res, err := direct.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asking the emulator: %w", err)
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("asking the emulator: %w", err)
	}
	if res.Header.Get("X-Oci-Emulator") == "" {
		return errors.New("HTTPS_PROXY does not lead to an oci-emulator")
	}
	if res.StatusCode >= 300 {
		var refused struct{ Error string }
		if json.Unmarshal(answer, &refused) != nil || refused.Error == "" {
			refused.Error = res.Status
		}
		return errors.New(refused.Error)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}
