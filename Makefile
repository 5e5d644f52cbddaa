# `make` lists the targets.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 30s
# How many mutants to try; 0 tries all.
N        ?= 300

# Static, as released programs are. One setting everywhere, so that nothing compiles twice.
export CGO_ENABLED := 0

BINARIES := ./provider/oke-sign-provider ./plugin/kubectl-oke_sign ./test/oci-emulator
# The race detector needs a C compiler; without one the tests run without it.
RACE     := $(shell command -v gcc >/dev/null && echo CGO_ENABLED=1 go test -race || echo go test)
LINT     := bin/tools/golangci-lint
VULN     := bin/tools/govulncheck
# Where govulncheck reads about vulnerabilities; a file:// URL works as well.
VULNDB   ?= https://vuln.go.dev
# Users run the policies with these programs, so the tests do, too.
CONFTEST := bin/tools/conftest
GATOR    := bin/tools/gator
HELM     := bin/tools/helm

# Builds packages into bin/, from the module in folder $(2) if there is one. Shows the
# number of downloads and compiled packages, in one moving line on a terminal and in a
# line for every hundred packages elsewhere. Prints all messages of the compiler.
define go_build
@go build $(if $(2),-C $(2) -trimpath) -v -ldflags '-s -w -X main.version=$(VERSION)' -o $(CURDIR)/bin/ $(1) 2>&1 | awk -v tty=$$([ -t 1 ] && echo 1) ' \
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
demo: ## the story on one screen, with real parts: no cloud account, no cluster
	$(call go_build,$(BINARIES) ./test/demo)
	@bin/demo --bin bin

# The picture shows the first scenes of a real run, in colour.
.PHONY: picture
picture: bin/tools/freeze ## draw docs/demo.svg, the picture in the README, from a run of the demo
	$(call go_build,$(BINARIES) ./test/demo)
	bin/demo --bin bin --color always | sed '/Somebody copies/,$$d' > bin/demo.ansi
	bin/tools/freeze --language ansi --font.family monospace --window --padding 20 --output docs/demo.svg bin/demo.ansi
	rm bin/demo.ansi

bin/tools/freeze: test/tools/freeze/go.mod test/tools/freeze/go.sum
	cd test/tools/freeze && go build -o ../../../$@ github.com/charmbracelet/freeze

.PHONY: test
test: $(CONFTEST) $(GATOR) $(HELM) ## every test that needs no cluster, under both presets for unknown behaviour of OCI
	$(RACE) ./provider/... ./test/ocitest/...
	go test -run '^TestMemory' ./provider/server
	OKE_SIGN_TOOLS=$(CURDIR)/bin/tools go test ./plugin/... ./policies/... ./charts/... $$(go list ./test/... | grep -v -e /test/ocitest -e /test/e2e)
	OKE_SIGN_TEST_OCI=lenient $(RACE) ./provider/registry/... ./provider/vulnscan/... ./provider/vault/... ./provider/oci/... ./provider/ociauth/... ./provider/oke-sign-provider/... ./test/ocitest/...
	OKE_SIGN_TEST_OCI=lenient go test ./plugin/... $$(go list ./test/... | grep -v -e /test/ocitest -e /test/e2e)

# The same flags as for the programs of the cluster, which share its packages.
define build_cluster
$(call go_build,$(BINARIES))
$(call go_build,./cmd/cluster,test/cluster)
endef

.PHONY: cluster
cluster: ## a real control plane with Gatekeeper and oke-sign on this machine
	$(build_cluster)
	@bin/cluster up

.PHONY: model
model: ## a million random cases of the policies against their specification
	go test ./policies -run '^TestModel' -model.cases 1000000 -timeout 0 -v

.PHONY: mutants
mutants: ## remove N (300) defences from policies and provider, one at a time; the tests must notice
	@go run ./test/mutants -n $(N)

.PHONY: e2e
e2e: ## end-to-end tests on such control planes; logs in bin/e2e-logs and bin/install-logs
	$(build_cluster)
	$(call go_build,./test/image)
	cd test/cluster && KUBEBUILDER_ASSETS=$$(../../bin/cluster build) go test -trimpath ./...
	go test -c -o bin/e2e.test ./test/e2e
	bin/cluster run --logs bin/e2e-logs -- bin/e2e.test -test.v -test.parallel 6 -test.timeout 30m
	bin/cluster run --bare --logs bin/install-logs -- bin/e2e.test -test.v -test.run '^TestInstall$$' -test.timeout 15m

.PHONY: bench
bench: ## our own figures, as "name value unit" lines
	@go run ./test/bench
	@go test ./policies -run '^$$' -bench '^BenchmarkReview$$' -benchtime 2000x | \
		awk '/^Benchmark/ { for (i = 3; i < NF; i += 2) { split($$(i + 1), of, "-"); print "policy_" of[1], $$i, of[2] } }'
	@go test ./policies -run '^$$' -bench '^BenchmarkImages$$' -benchtime 20x | \
		awk '/^Benchmark/ { split($$1, of, "/"); sub(/-.*/, "", of[4]); print "policy_" of[2] "_" of[3] "_" of[4] "_images", $$3 / 1000, "us" }'

.PHONY: lint
lint: $(LINT) vuln ## golangci-lint, govulncheck; opa check --strict, opa fmt and a few rules of Regal, in process; words; shell syntax
	$(LINT) run ./...
	@# Plain opa does not know Gatekeeper's external_data; the test declares it.
	go test -count=1 -run '^TestRegoIs' ./policies
	go test -count=1 ./test/words
	bash -n .ci/run krew/install.sh test/ocitest/confirm.sh
	@# golangci-lint would look for facts in all of Kubernetes, for minutes.
	cd test/cluster && test -z "$$(gofmt -l . | tee -a /dev/stderr)" && go vet -trimpath ./...

# Fails for a known vulnerability, but not because the network does not reach the database.
.PHONY: vuln
vuln: $(VULN) ## known vulnerabilities in the code that the product calls
	@found=$$($(VULN) -db $(VULNDB) ./... 2>&1); code=$$?; \
	if [[ $$found == "govulncheck: fetching vulnerabilities: Get "* ]]; then \
		echo "govulncheck: skipped, because $(VULNDB) cannot be reached"; \
	else \
		echo "$$found"; exit $$code; \
	fi

$(LINT): test/tools/go.mod test/tools/go.sum
	cd test/tools && go build -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(VULN): test/tools/govulncheck/go.mod test/tools/govulncheck/go.sum
	cd test/tools/govulncheck && go build -o ../../../$@ golang.org/x/vuln/cmd/govulncheck

$(CONFTEST): test/tools/conftest/go.mod test/tools/conftest/go.sum
	cd test/tools/conftest && go build -o ../../../$@ github.com/open-policy-agent/conftest

# Its version is that of Gatekeeper in the cluster of the tests.
$(GATOR): test/cluster/go.mod test/cluster/go.sum
	cd test/cluster && go build -trimpath -o ../../$@ github.com/open-policy-agent/gatekeeper/v3/cmd/gator

# Its version comes from the same module as that of gator.
$(HELM): test/cluster/go.mod test/cluster/go.sum
	cd test/cluster && go build -trimpath -o ../../$@ helm.sh/helm/v4/cmd/helm

.PHONY: generate
generate: ## write the generated files: ConstraintTemplates, copies of the Rego, tables of the charts
	go generate ./policies/...
	go generate ./charts/...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; for pkg in $$(go list ./provider/... ./plugin/... ./test/...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

# The version that goreleaser made.
made = $$(sed -n 's/.*"version":"\([^"]*\)".*/\1/p' dist/metadata.json 2>/dev/null)

# Makes the version of the commit's tag, or else a snapshot. Archives that dist already
# has of this commit are not built again.
.PHONY: archives
archives: bin/tools/goreleaser bin/tools/cyclonedx-gomod
	@want=$$(git describe --tags --exact-match --match 'v*' 2>/dev/null || echo "v*-$$(git rev-parse --short HEAD)"); \
	if [[ -f dist/checksums.txt && "v$(made)" == $$want && -z "$$(git status --porcelain)" ]]; then \
		echo "dist has the archives of this commit"; \
	else \
		PATH="$(CURDIR)/bin/tools:$$PATH" goreleaser release --clean $$([[ $$want == *'*'* ]] && echo --snapshot); \
	fi

# Packs a program of the archives into an image: its name, the folder of its build,
# and the reference to push to, if any.
define pack_image
go run ./test/image --program $(1) --out dist/image/$(1) --version $(made) --revision $$(git rev-parse HEAD) \
	--created $$(git log -1 --format=%ct) $(if $(3),--push $(3)) \
	linux/amd64=$$(echo dist/$(2)_linux_amd64*/$(1)) linux/arm64=$$(echo dist/$(2)_linux_arm64*/$(1))
tar -C dist/image/$(1) --sort=name --mtime=@$$(git log -1 --format=%ct) --owner=0 --group=0 -cf dist/$(1)-image.tar .
endef

.PHONY: release
release: archives $(HELM) ## dist: archives, sums, SBOMs, multi-arch images of provider and plugin, and the charts
	@[[ $(made) == *-* ]] || grep -qx "version: $(made)" charts/oke-sign/Chart.yaml || { echo "the charts are of another version than $(made)"; exit 1; }
	rm -rf dist/image
	$(call pack_image,oke-sign-provider,provider,$(PUSH))
	$(call pack_image,kubectl-oke_sign,plugin,$(PUSH_PLUGIN))
	$(HELM) package charts/oke-sign charts/oke-sign-policy --destination dist
	cd dist && sed -i '/\.tgz$$/d; /-image\.tar$$/d' checksums.txt && sha256sum *.tgz *-image.tar >>checksums.txt

.PHONY: krew
krew: archives bin/tools/krew ## archives of the plugin, krew/oke-sign.yaml with their sums, and an installation with krew
	$(call go_build,./cmd/cluster,test/cluster)
	krew/install.sh v$(made) dist bin/tools $$(bin/cluster build)/kubectl

bin/tools/goreleaser bin/tools/cyclonedx-gomod: test/tools/release/go.mod test/tools/release/go.sum
	cd test/tools/release && go build -trimpath -o ../../../$@ $(if $(filter %goreleaser,$@),github.com/goreleaser/goreleaser/v2,github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod)

bin/tools/krew: test/tools/krew/go.mod test/tools/krew/go.sum
	cd test/tools/krew && go build -trimpath -o ../../../bin/tools/ tool

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist krew/oke-sign.yaml
