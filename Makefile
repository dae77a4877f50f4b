# make demo    the main job: the whole system on this machine, a planned failover under live traffic
# make demo-apache     the same on Apache Kafka and MirrorMaker 2; needs Java 17 and Maven
# make demo-disaster   the active cluster is killed under traffic, then an unplanned failover; on Apache Kafka where there is Java
# make demo-roundtrip  a disaster with stranded records, then home again; demo-roundtrip-apache on Apache Kafka and MirrorMaker 2
# make test    every test that this machine can run
# make check   what is quick: format, lint, import rules, workflowcheck, known vulnerabilities, unit tests
# make build   the programs, into bin/: switchback, worker, supervisor, lab
# make unit    the unit tests of both modules; SHORT= also runs the lab's longer ones
# make fuzz    every fuzz target for FUZZTIME (5s)
# make e2e     the end-to-end tests; make test-crash kills every process at every step
# make test-stories    random stories: runs, disasters, recoveries and ways home in any order; STORIES=100, SEED= plays them again
# make test-crash-full the same at every line of unplanned runs too, on both backends, and with every outage
# make bench   the measurements of docs/performance.md; ONLY=TestApache those on Apache Kafka alone
# make clean   remove bin/ and out/
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/switchback/tools
GO ?= go
LINT := $(CACHE)/golangci-lint-$(shell sha256sum tools/lint/go.sum | cut -c1-12)
WORKFLOWCHECK := $(CACHE)/workflowcheck-$(shell sha256sum tools/workflowcheck/go.sum | cut -c1-12)
GOVULNCHECK := $(CACHE)/govulncheck-$(shell sha256sum tools/vuln/go.sum | cut -c1-12)

FUZZTIME ?= 5s
SHORT ?= -short
TESTS := GO=$(GO) scripts/tests.sh

.PHONY: help build demo demo-apache demo-disaster demo-roundtrip demo-roundtrip-apache test check unit lint lint-rules workflowcheck vuln e2e test-crash test-crash-full test-stories bench fuzz clean

help:
	@sed -n 's/^# make/make/p' Makefile

build: ## the product's programs and the lab
	$(GO) build -o bin/switchback ./starter
	$(GO) build -o bin/worker ./worker
	$(GO) build -o bin/supervisor ./supervisor
	cd lab && $(GO) build -o ../bin/lab .

demo: build
	bin/lab demo planned

# A laptop runs six Java processes beside everything else: a smaller workload than that of the lab's own Kafka.
SMALL := --topics=10 --partitions=4 --rate=300
demo-apache: build
	bin/lab demo planned --kafka=apache --link=mirrormaker $(SMALL)

demo-disaster: build
	bin/lab demo disaster $(SMALL)

demo-roundtrip: build
	bin/lab demo roundtrip

demo-roundtrip-apache: build
	bin/lab demo roundtrip --kafka=apache --link=mirrormaker $(SMALL)

# All that failed, was skipped (by name, and why) or passed stands again at the end.
test:
	@rm -rf out/tests
	@code=0; for part in check fuzz e2e test-crash; do $(MAKE) $$part SHORT= || { code=1; echo "FAILED: make $$part"; }; done; \
	echo; echo "All tests together:"; $(GO) run scripts/summary.go out/tests/*.json || code=1; exit $$code

check:
	@started=$$SECONDS; $(MAKE) lint lint-rules workflowcheck vuln unit; echo "make check took $$((SECONDS - started)) s"

# What tests the linter runs in lint-rules, where the linter has been built.
unit:
	AGAIN=3 $(TESTS) . -skip '^TestTheLinterRefuses$$' ./...
	AGAIN=3 $(TESTS) lab $(SHORT) $$(cd lab && $(GO) list ./... | grep -v -e /e2e -e /crash -e /bench)

$(LINT):
	@echo "Building the linter once (usually 2 minutes)"
	@mkdir -p $(CACHE)
	cd tools/lint && $(GO) build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(WORKFLOWCHECK):
	@mkdir -p $(CACHE)
	cd tools/workflowcheck && $(GO) build -o $@ go.temporal.io/sdk/contrib/tools/workflowcheck

$(GOVULNCHECK):
	@mkdir -p $(CACHE)
	cd tools/vuln && $(GO) build -o $@ golang.org/x/vuln/cmd/govulncheck

lint: $(LINT)
	$(LINT) run --allow-parallel-runners ./...
	cd lab && $(LINT) run --allow-parallel-runners --config ../.golangci.yml ./...

# That the linter refuses what it is there to refuse: forbidden imports, clocks in workflows, sleeping in tests.
lint-rules: $(LINT)
	LINT=$(LINT) $(GO) test -count=1 -run TestTheLinterRefuses ./internal/lint

workflowcheck: $(WORKFLOWCHECK)
	$(WORKFLOWCHECK) ./workflows/...

# The vulnerability database is fetched; without a way to it this says that nothing was checked, and fails nothing.
vuln: $(GOVULNCHECK)
	@scripts/vuln.sh $(GOVULNCHECK) ./worker ./starter ./supervisor

e2e: build
	AGAIN=3 $(TESTS) lab -count=1 -timeout 40m ./e2e/...

STORIES ?= 100
SEED ?= 0
test-stories: build
	$(TESTS) lab -count=1 -timeout 120m ./e2e -run '^TestRandomStories$$' -stories $(STORIES) -seed $(SEED)

test-crash-full: FULL := -full
test-crash test-crash-full: build
	rm -f out/crash.txt
	AGAIN=3 $(TESTS) lab -count=1 -timeout $(if $(FULL),90m,30m) -tags crash ./crash/... $(FULL) || code=$$?; cat out/crash.txt; exit $${code:-0}

fuzz:
	@scripts/fuzz.sh $(FUZZTIME)

bench: build
	cd lab && $(GO) test -count=1 -timeout 40m -v -tags bench $(if $(ONLY),-run '$(ONLY)') ./bench/...

clean:
	rm -rf bin out
