# `make` lists the targets.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 30s

BINARIES := ./provider/oke-sign-provider ./plugin/kubectl-oke_sign ./test/oci-emulator
# The race detector needs a C compiler; without one the tests run without it.
RACE     := $(shell command -v gcc >/dev/null && echo -race)
LINT     := bin/tools/golangci-lint

# Prints what is downloaded and how many packages are compiled, one line that
# moves on a terminal and a line for every hundred packages elsewhere, and
# whatever the compiler says.
define go_build
@go build -v -ldflags '-X main.version=$(VERSION)' -o bin/ $(1) 2>&1 | awk -v tty=$$([ -t 1 ] && echo 1) ' \
	/^go: downloading/ { d++; show = sprintf("downloading modules: %d", d) } \
	!/^go: downloading/ { if ($$0 ~ /^[^ :]+$$/) { n++; show = sprintf("compiling packages: %d  %s", n, $$0) } else { print; next } } \
	{ if (tty) printf "\r\033[K%s", substr(show, 1, 78); else if ((n + d) % 100 == 0) print show; fflush() } \
	END { if (tty && show) printf "\r\033[K" }'
endef

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/oke-sign-provider, bin/kubectl-oke_sign, bin/oci-emulator
	$(call go_build,$(BINARIES))

.PHONY: demo
demo: ## the whole story with real parts: no cloud account, no cluster
	$(call go_build,$(BINARIES) ./test/demo)
	@bin/demo --bin bin

.PHONY: test
test: ## everything that needs no cluster, under both guesses at what is unknown about OCI
	go test $(RACE) ./provider/... ./test/ocitest/...
	go test ./plugin/... ./policies/... $$(go list ./test/... | grep -v /test/ocitest)
	OKE_SIGN_TEST_OCI=lenient go test $(RACE) ./provider/registry/... ./provider/vault/... ./provider/principal/... ./provider/oke-sign-provider/... ./test/ocitest/...
	OKE_SIGN_TEST_OCI=lenient go test ./plugin/... $$(go list ./test/... | grep -v /test/ocitest)

.PHONY: e2e
e2e: ## end-to-end tests on a real control plane (not there yet)
	@echo 'make e2e: there are no end-to-end tests on a real control plane yet; make demo runs the engine of one' >&2; exit 1

.PHONY: bench
bench: ## our own figures, as "name value unit" lines
	@go run ./test/bench

.PHONY: lint
lint: $(LINT) ## golangci-lint; opa check --strict and opa fmt, in process; shell syntax
	$(LINT) run ./...
	@# Plain opa does not know Gatekeeper's external_data; the test declares it.
	go test -count=1 -run '^TestRegoIs' ./policies
	bash -n .ci/run test/ocitest/confirm.sh

$(LINT): test/tools/go.mod test/tools/go.sum
	cd test/tools && go build -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: generate
generate: ## write the ConstraintTemplates and the region table in Rego from their sources
	go generate ./policies/...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; for pkg in $$(go list ./provider/... ./plugin/... ./test/...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
