# make demo    the main job: the whole system on this machine, a planned failover under live traffic
# make test    every test that this machine can run
# make check   what is quick: format, lint, import rules, workflowcheck, unit tests
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/switchback/tools
GO ?= go
LINT := $(CACHE)/golangci-lint-$(shell sha256sum tools/lint/go.sum | cut -c1-12)
WORKFLOWCHECK := $(CACHE)/workflowcheck-$(shell sha256sum tools/workflowcheck/go.sum | cut -c1-12)
GOVULNCHECK := $(CACHE)/govulncheck-$(shell sha256sum tools/vuln/go.sum | cut -c1-12)

.PHONY: help build demo test check unit lint workflowcheck vuln e2e test-crash bench fuzz clean

help:
	@sed -n 's/^# make/make/p' Makefile

build: ## the product's programs and the lab
	$(GO) build -o bin/switchback ./starter
	$(GO) build -o bin/worker ./worker
	$(GO) build -o bin/supervisor ./supervisor
	cd lab && $(GO) build -o ../bin/lab .

demo: build
	bin/lab demo planned

test: check fuzz e2e test-crash

check: lint workflowcheck unit

unit:
	$(GO) test ./...
	cd lab && $(GO) test -short ./...

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
	$(LINT) run ./...
	cd lab && $(LINT) run --config ../.golangci.yml ./...

workflowcheck: $(WORKFLOWCHECK)
	$(WORKFLOWCHECK) ./workflows/...

# The vulnerability database is fetched; without a way to it this says so and fails nothing else.
vuln: $(GOVULNCHECK)
	$(GOVULNCHECK) ./...

e2e: build
	cd lab && $(GO) test -count=1 -timeout 25m ./e2e/...

test-crash: build
	cd lab && $(GO) test -count=1 -timeout 30m -tags crash ./crash/...

fuzz:
	$(GO) test -run '^$$' -fuzz FuzzParse -fuzztime 5s ./runbooks

bench: build
	cd lab && $(GO) test -count=1 -timeout 30m -run '^$$' -bench . ./bench/...

clean:
	rm -rf bin out
