# rekeyd: `make` lists what there is. Nothing here needs more than Go and a shell, unless its line says so.

SHELL         := /bin/sh
.SHELLFLAGS   := -euc
.DEFAULT_GOAL := help

GO    ?= go
CACHE := $(CURDIR)/.cache

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
EPOCH    ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

RACE     ?= -race
FUZZTIME ?= 5s

GOLANGCI_VERSION := v2.15.0
GOLANGCI         := $(CACHE)/golangci-lint/$(GOLANGCI_VERSION)/golangci-lint

# Where FLAKY names a file, a test that fails and then passes alone, twice, is noted there instead.
FLAKY  ?=
GOTEST := $(GO) run ./internal/tools/gotest $(if $(FLAKY),-flaky=$(FLAKY))

LDFLAGS := -s -w -X main.version=$(VERSION) -X main.revision=$(REVISION)

# What git does not track and no tool of ours should look into.
FOREIGN := --exclude-dir=node_modules --exclude-dir=.cache --exclude-dir=.git

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## see rotations happen, in one process and with nothing installed; Ctrl-C stops it
	@$(GO) run ./cmd/demo

.PHONY: build
build: ## build bin/rekeyd, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/rekeyd ./cmd/rekeyd

.PHONY: test
test: vault helm ## run every test, race detector on, on a real Vault server too (needs a C compiler; uses VAULT_BIN or the vault on the PATH)
	@if [ -n '$(RACE)' ] && ! command -v "$$($(GO) env CC)" >/dev/null; then \
	  echo "make test: the race detector needs a C compiler, and $$($(GO) env CC) is not installed; install gcc, or do without it: make test RACE=" >&2; exit 1; fi
	$(GOTEST) $(RACE) -shuffle=on -timeout=30m ./...
	$(if $(RACE),$(GOTEST) -run='^TestAnyState' ./rotator) # all of what the race detector gets a sample of

.PHONY: check
check: vault ## what a change needs before it is sent, in two minutes on a warm machine: fast tests, lint, generated files
	$(GOTEST) -short ./rotator/... ./config/... ./sinks/... ./elevenlabs/... ./cmd/rekeyd ./internal/archtest ./internal/conformance ./internal/events ./internal/memkv ./internal/metrics
	$(GOTEST) -run='^Test(Generated|Types)$$' ./internal/charttest
	$(GOTEST) ./internal/mixintest
	$(GOTEST) -run='^TestLinks' ./internal/doctest
	@$(MAKE) --no-print-directory lint

.PHONY: test-kubernetes
test-kubernetes: vault ## apply the chart to a real kube-apiserver and log in to Vault through it (needs etcd); the first time it is built, in about 10 minutes
	REKEYD_KUBERNETES=1 $(GO) test ./internal/e2e -run Kubernetes -count=1 -timeout 40m -v

.PHONY: torture
torture: vault ## kill and freeze real processes while readers read; REKEYD_TORTURE_KILLS=200, REKEYD_TORTURE_LEADERS=8, REKEYD_TORTURE_LAG_SECONDS=15, REKEYD_TORTURE_SEED=N
	$(GO) test $(RACE) -count=1 -v -timeout 60m ./internal/torture

.PHONY: vault
vault: ## build the tests' Vault server into .cache/vault, once; about 5 minutes
	@$(GO) run ./internal/vaulttest/vaultbin >/dev/null

.PHONY: helm
helm: ## build the tests' helm into .cache/helm, once; about 2 minutes
	@$(GO) test ./internal/charttest -run '^TestTypes$$' -count=1 -timeout 20m

.PHONY: lint
lint: $(GOLANGCI) ## gofmt, go vet, golangci-lint, go mod tidy, lines of code, actionlint; govulncheck where its data can be had
	$(GOLANGCI) run ./...
	$(GO) vet ./...
	@files=$$(find . -name '*.go' -not -path '*/node_modules/*' -not -path './.cache/*' -print0 | xargs -0 gofmt -l); \
	  if [ -n "$$files" ]; then echo "not formatted by gofmt:" >&2; echo "$$files" >&2; exit 1; fi
	$(GO) mod tidy -diff
	@$(GO) run ./internal/tools/count >/dev/null
	$(GO) run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 -shellcheck= .github/workflows/*.yaml docs/examples/github-actions/*.yaml
	@db=$$($(GO) env GOVULNDB); db=$${db:-https://vuln.go.dev}; \
	  if curl -fsS --max-time 10 -o /dev/null "$$db/index/db.json" 2>/dev/null; then \
	    $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...; \
	  else echo "lint: the vulnerability data at $$db cannot be reached from here: govulncheck was not run"; fi

$(GOLANGCI):
	@echo "lint: building golangci-lint $(GOLANGCI_VERSION) once, into .cache: some minutes"
	@GOFLAGS= GOBIN=$(@D) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (5s)
	@grep -rHo $(FOREIGN) --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file func; do \
	  echo "fuzz: $${func#func } in $$(dirname "$$file")"; \
	  run() { $(GO) test -run "$$1" -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; }; \
	  run '^$$' || { echo "fuzz: once more: Go's fuzzer may end with a deadline exceeded; an input that fails was kept, and fails again"; run "^$${func#func }\$$"; }; \
	done

SEEDS ?= 1000
FIRST ?= 1

.PHONY: seeds
seeds: ## break replicas in simulated time: SEEDS (1000) seeds
	$(GO) test ./internal/simulation -run 'TestSimulation$$|Replays' -count=1 -timeout 75m -v -args -seeds=$(SEEDS) -first=$(FIRST)

.PHONY: simulate
simulate: seeds ## the same, then every seeded bug must be found
	REKEYD_SEEDED_BUGS=1 $(GO) test ./internal/simulation -run SeededBugs -count=1 -timeout 30m -v

.PHONY: hostile
hostile: ## try hostile configurations, remotes and requests against the real binary, and print a table; five minutes
	REKEYD_HOSTILE=1 $(GO) test ./internal/hostiletest -run "^TestHostileInput$$" -count=1 -timeout 20m -v

.PHONY: model
model: ## search every state of the model of the protocol, then find every planted mistake (needs spin and gcc); about two minutes
	CI=true REKEYD_MODEL=1 $(GO) test ./internal/model -count=1 -timeout 20m -v

SAMPLE  ?= 0
WORKERS ?= 1
MUTANTS := $(GO) run ./internal/mutants -sample $(SAMPLE) -workers $(WORKERS)

.PHONY: mutants
mutants: ## make small mistakes in rotator and sinks and say which no test notices: hours; SAMPLE=100 draws so many of each
	$(MUTANTS) -tests rotator,rotator/plan,rotator/ledger $(patsubst %,rotator/%.go,rotate recover retire rollback calls job) rotator/plan rotator/ledger
	$(MUTANTS) sinks

.PHONY: soak
soak: ## simulate new seeds until it is stopped or finds something
	@first=$$(date +%s)000; while $(GO) test ./internal/simulation -run 'TestSimulation$$' -count=1 -timeout 75m -v -args -seeds=5000 -first=$$first; do first=$$((first + 5000)); done

.PHONY: bench
bench: vault ## make the figures of docs/benchmarks.md (needs curl, jq and taskset); an hour
	REKEYD_BENCH=1 $(GO) test ./internal/bench -count=1 -timeout 90m -v

.PHONY: prometheus
prometheus: vault ## check alerts and dashboard, and let a real Prometheus and Alertmanager watch rekeyd (needs both, promtool, amtool and jq)
	deploy/prometheus/check.sh
	$(GOTEST) -tags=prometheus -count=1 -run='^TestPrometheus' ./internal/e2e

.PHONY: mixin
mixin: ## format deploy/mixin, and write alerts and dashboard from it
	$(GO) test ./internal/mixintest -count=1 -run '^TestMixin$$' -update

.PHONY: manifests
manifests: mixin ## write deploy/kubernetes from the chart, and the chart's copies of alerts and dashboard
	$(GO) test ./internal/charttest -count=1 -run '^TestGenerated$$' -update

.PHONY: image
image: ## build the container image for amd64 and arm64 into dist/image, an OCI layout (needs buildah and jq)
	VERSION=$(VERSION) REVISION=$(REVISION) SOURCE_DATE_EPOCH=$(EPOCH) deploy/image.sh dist/image

.PHONY: image-test
image-test: ## build the image twice from local stand-ins of its bases and let it rotate a key (needs root, buildah, jq and curl)
	deploy/image-test.sh

.PHONY: release
release: ## make a release of VERSION in dist/release: archives, image, parts lists, notes, checksums (needs buildah and jq)
	VERSION=$(VERSION) REVISION=$(REVISION) SOURCE_DATE_EPOCH=$(EPOCH) deploy/release.sh dist/release

.PHONY: release-test
release-test: ## make a release twice from local stand-ins of the bases, and compare (needs root, buildah, jq and curl)
	deploy/release-test.sh

.PHONY: count
count: ## print the lines of code of the product, by package
	@$(GO) run ./internal/tools/count

.PHONY: clean
clean: ## remove what was built; the caches in .cache stay
	rm -rf bin dist
