package ocitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

// adminHandler serves the emulator's own pages, which OCI does not have:
//
//	GET, POST, DELETE /_emulator/faults      set, list and clear faults
//	GET, DELETE       /_emulator/calls       count requests by operation
//	GET               /_emulator/requests    the last requests
//	GET               /_emulator/state       the state without private keys
//	POST              /_emulator/save        write the state file
//	GET, PUT          /_emulator/switches    what is unconfirmed about OCI
//	POST              /_emulator/signatures  store a signature record without checks
//	POST              /_emulator/problems    set what scans find in an image
//	POST              /_emulator/statements  add IAM statements
//	POST              /_emulator/auth-tokens make an auth token of a user
//	POST              /_emulator/workloads   issue a token for a cluster's service account
func (c *Cloud) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_emulator/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/_emulator/" {
			reply(w, http.StatusNotFound, map[string]string{"error": "no such page"})
			return
		}
		reply(w, http.StatusOK, map[string]string{"about": about, "home": c.Home()})
	})
	mux.HandleFunc("GET /_emulator/faults", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, c.Faults()) })
	mux.HandleFunc("POST /_emulator/faults", c.postFaults)
	mux.HandleFunc("DELETE /_emulator/faults", c.deleteFaults)
	mux.HandleFunc("GET /_emulator/calls", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, c.Calls()) })
	mux.HandleFunc("DELETE /_emulator/calls", func(w http.ResponseWriter, _ *http.Request) {
		c.ResetCalls()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /_emulator/requests", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, c.Requests()) })
	mux.HandleFunc("GET /_emulator/state", c.getState)
	mux.HandleFunc("POST /_emulator/save", func(w http.ResponseWriter, _ *http.Request) { done(w, c.Save()) })
	mux.HandleFunc("GET /_emulator/switches", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, c.Switches()) })
	mux.HandleFunc("PUT /_emulator/switches", c.putSwitches)
	mux.HandleFunc("POST /_emulator/signatures", c.postSignature)
	mux.HandleFunc("POST /_emulator/problems", c.postProblems)
	mux.HandleFunc("POST /_emulator/statements", c.postStatements)
	mux.HandleFunc("POST /_emulator/auth-tokens", c.postAuthToken)
	mux.HandleFunc("POST /_emulator/workloads", c.postWorkload)
	return local(http.MaxBytesHandler(mux, maxBody))
}

// local rejects requests of web pages. A page that attacks the emulator from a
// browser sends Origin, or a host name that resolves to loopback.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		ip := net.ParseIP(host)
		if r.Header.Get("Origin") != "" || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			reply(w, http.StatusForbidden, map[string]string{"error": "not for web pages"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(body) //nolint:errcheck // the client may have left
}

func done(w http.ResponseWriter, err error) {
	if err != nil {
		reply(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// strictly decodes JSON and rejects unknown fields. Otherwise a misspelt fault would
// never strike.
func strictly(r io.Reader, into any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	return nil
}

// postFaults sets one fault or an array of them. One bad fault rejects the whole
// request.
func (c *Cloud) postFaults(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		done(w, err)
		return
	}
	var faults []Fault
	if trimmed := bytes.TrimSpace(body); len(trimmed) > 0 && trimmed[0] != '[' {
		body = append(append([]byte("["), trimmed...), ']')
	}
	if err := strictly(bytes.NewReader(body), &faults); err != nil {
		done(w, err)
		return
	}
	for _, f := range faults {
		if err := f.validate(); err != nil {
			done(w, err)
			return
		}
	}
	ids := make([]int64, len(faults))
	for i, f := range faults {
		if ids[i], err = c.SetFault(f); err != nil {
			done(w, err)
			return
		}
	}
	reply(w, http.StatusOK, map[string]any{"ids": ids})
}

func (c *Cloud) deleteFaults(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("id")
	if text == "" {
		c.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
		return
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		c.ClearFault(id)
	}
	done(w, err)
}

func (c *Cloud) putSwitches(w http.ResponseWriter, r *http.Request) {
	s := c.Switches()
	if err := strictly(r.Body, &s); err != nil {
		done(w, err)
		return
	}
	done(w, c.SetSwitches(s))
}

func (c *Cloud) postSignature(w http.ResponseWriter, r *http.Request) {
	var rec Record
	if err := strictly(r.Body, &rec); err != nil {
		done(w, err)
		return
	}
	id, err := c.AddRecord(rec)
	if err != nil {
		done(w, err)
		return
	}
	reply(w, http.StatusOK, map[string]string{"id": id})
}

func (c *Cloud) getState(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, c.State())
}

// State returns the state of the cloud in JSON, without its secrets.
func (c *Cloud) State() json.RawMessage {
	c.mu.Lock()
	copied, err := c.world.clone()
	c.mu.Unlock()
	if err != nil {
		panic("ocitest: " + err.Error()) // the world is always JSON
	}
	for _, k := range copied.Keys {
		for _, v := range k.Versions {
			v.Private = nil
		}
	}
	for _, u := range copied.Users {
		u.AuthToken = ""
		for _, t := range u.Tokens {
			t.Token = ""
		}
	}
	for _, d := range copied.Domains {
		for id := range d.Clients {
			d.Clients[id] = ""
		}
	}
	for _, i := range copied.Issuers {
		i.Private = nil
	}
	for _, j := range copied.Jobs {
		j.Token = ""
	}
	b, err := json.Marshal(copied)
	if err != nil {
		panic("ocitest: " + err.Error())
	}
	return b
}
