# The two commands to know: make demo, make test. make help lists the rest.

GO       ?= go
FUZZTIME ?= 30s
BENCH    ?= .
# Packages tested at a time. Several of them measure time, so not too many.
TESTP    ?= 2

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

.PHONY: build
build: ## build bin/ustack
	$(GO) build -o bin/ustack ./cmd/ustack

.PHONY: demo
demo: ## watch a live connection being frozen and thawed, over a real TAP device
	$(GO) run ./cmd/ustack demo

.PHONY: test
test: ## vet and test everything
	$(GO) vet ./...
	$(GO) test -p $(TESTP) -timeout 9m ./...

.PHONY: race
race: ## test everything under the race detector
	$(GO) test -race -p $(TESTP) -timeout 40m $$($(GO) list ./... | grep -v /internal/interop$$)
	@# Of the tests against the kernel those of the freeze: others race with
	@# the kernel's clock, and the detector makes us too slow for them.
	$(GO) test -race -timeout 20m -run '^Test(Frozen|Thawed)' ./internal/interop

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (30s)
	@failed=; \
	for pkg in $$($(GO) list ./...); do \
		list=$$($(GO) test -list '^Fuzz' "$$pkg") || failed="$$failed $$pkg"; \
		for target in $$(printf '%s\n' "$$list" | sed -n 's/^\(Fuzz[^ ]*\)$$/\1/p'); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg" || failed="$$failed $$target"; \
		done; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

.PHONY: model
model: ## hold ten thousand random conversations against what a connection promises
	$(GO) test -count=1 -timeout 15m -run '^TestConversationModel$$' ./stack/tcp/conn -rapid.checks=10000

.PHONY: bench
bench: ## compare speed and memory with gVisor's TCP and the kernel's (QUICK=1: within a minute)
	$(GO) run ./bench $(if $(QUICK),-quick) $(BENCHFLAGS)

.PHONY: gobench
gobench: ## run the Go benchmarks whose name matches BENCH (all)
	$(GO) test -p 1 -run '^$$' -bench '$(BENCH)' -benchmem ./...

.PHONY: bench-wire
bench-wire: ## goodput against the kernel over a wire that loses packets, into bench/README.md
	$(GO) run ./bench/wire -runs 7 -beside 3 -write bench/README.md

.PHONY: portable
portable: ## build and vet what embedders ship, for every system they ship it on
	@for os in linux darwin windows freebsd; do for arch in amd64 arm64; do \
		echo "$$os/$$arch"; \
		GOOS=$$os GOARCH=$$arch $(GO) vet ./stack/tcp/... ./stack/repair || exit 1; \
	done; done

.PHONY: golden
golden: ## recompute testdata/netsim and fail on a difference; UPDATE=1 writes it, OURS=1 leaves gVisor's figures alone
	$(GO) test -count=1 -timeout 60m -run TestGolden ./internal/netsim -golden $(if $(UPDATE),-update) $(if $(OURS),-ours)

.PHONY: lint
lint: ## check formatting, vet, staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
