// Command program runs in the tests' containers and reports what it finds there.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
)

func main() {
	listen := flag.String("listen", "", "address")
	exit := flag.Int("exit", -1, "code to end with at once")
	stubborn := flag.Bool("stubborn", false, "ignore SIGTERM")
	write := flag.String("write", "", "file to add a line to")
	line := flag.String("line", "", "the line")
	flag.Parse()
	if *write != "" {
		f, err := os.OpenFile(*write, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
		if err == nil {
			_, err = fmt.Fprintln(f, *line)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(9)
		}
	}
	if *exit >= 0 {
		os.Exit(*exit)
	}
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	go func() {
		for range terms {
			fmt.Println("SIGTERM")
			if !*stubborn {
				os.Exit(0)
			}
		}
	}()
	var ready, live atomic.Bool
	ready.Store(true)
	live.Store(true)
	health := func(path string, ok *atomic.Bool) {
		http.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			if !ok.Load() {
				http.Error(w, "no", http.StatusServiceUnavailable)
			}
		})
		http.HandleFunc("PUT "+path, func(_ http.ResponseWriter, r *http.Request) { ok.Store(r.FormValue("is") == "true") })
	}
	health("/readyz", &ready)
	health("/healthz", &live)
	http.HandleFunc("GET /found", func(w http.ResponseWriter, _ *http.Request) {
		groups, _ := os.Getgroups()
		_ = json.NewEncoder(w).Encode(map[string]any{"argv": os.Args, "env": os.Environ(), "uid": os.Getuid(), "gid": os.Getgid(), "groups": groups})
	})
	http.HandleFunc("GET /read", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = w.Write(b)
	})
	http.HandleFunc("GET /list", func(w http.ResponseWriter, r *http.Request) {
		entries, err := os.ReadDir(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		for _, e := range entries {
			fmt.Fprintln(w, e.Name())
		}
	})
	http.HandleFunc("PUT /write", func(w http.ResponseWriter, r *http.Request) {
		if err := os.WriteFile(r.FormValue("path"), []byte("x"), 0o600); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})
	http.HandleFunc("PUT /exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	fmt.Println(http.ListenAndServe(*listen, nil))
	os.Exit(8)
}
