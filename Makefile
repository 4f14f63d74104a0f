# eventrelay. `make help` lists what there is to do.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

GO ?= go
TOOLS := .tools
# The tools are Go programs pinned in tools.mod, whose dependencies stay out of the service's own go.mod.
TOOL_NAMES := benchstat buf gofumpt golangci-lint grpcurl protoc-gen-go protoc-gen-go-grpc protoc-gen-grpc-gateway protoc-gen-openapi
# The modules that carry the protos we import; only those files are copied out of them.
GOOGLEAPIS_MODULE := github.com/grpc-ecosystem/grpc-gateway@v1.16.0
PROTOVALIDATE_MODULE := github.com/bufbuild/protovalidate@v1.2.2

# What `make bench` and `make fuzz` take.
BENCH ?= .
FUZZTIME ?= 1m

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

.PHONY: run
run: ## Serve for development: embedded log, sources dev and dev360, loopback only
	$(GO) run ./server --dev

.PHONY: demo
demo: ## Show the whole path in one terminal: serve, tail, trigger; exits 0 when the event arrived
	bash demo.sh

.PHONY: test
test: ## Run the whole suite with the race detector
	$(GO) test -race -timeout 10m ./...

.PHONY: bench
bench: ## Run the benchmarks (BENCH=regexp)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 30m ./server/... ./client/...

.PHONY: fuzz
fuzz: ## Run every fuzz target for a while (FUZZTIME=1m)
	@$(GO) list -f '{{.Dir}}' ./server/... ./client/... | while read -r dir; do \
		grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$$dir"/*_test.go 2>/dev/null | awk '{print $$2}' | while read -r target; do \
			echo "== $$target in $${dir#$(CURDIR)/}"; \
			(cd "$$dir" && $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) .); \
		done; \
	done

.PHONY: generate
generate: $(TOOLS)/.built .proto-deps/.copied ## Rewrite gen/ from the protos
	$(TOOLS)/buf generate

.PHONY: checkgenerate
checkgenerate: generate ## Fail if gen/ is not what the protos make
	@git diff --exit-code --stat -- gen && test -z "$$(git status --porcelain -- gen)" || \
		{ echo 'gen/ does not match the protos: run `make generate` and commit the result' >&2; git status --short -- gen >&2; exit 1; }

.PHONY: lint
lint: $(TOOLS)/.built .proto-deps/.copied ## Lint Go and protos, check the formatting of both
	$(TOOLS)/buf lint proto
	$(TOOLS)/buf format --diff --exit-code proto
	@unformatted=$$(git ls-files '*.go' | grep -v '^gen/' | xargs -r $(TOOLS)/gofumpt -l); \
		if [ -n "$$unformatted" ]; then echo "not formatted (run \`make fmt\`):" $$unformatted >&2; exit 1; fi
	$(TOOLS)/golangci-lint run ./...

.PHONY: fmt
fmt: $(TOOLS)/.built .proto-deps/.copied ## Format Go and protos
	git ls-files '*.go' | grep -v '^gen/' | xargs -r $(TOOLS)/gofumpt -w
	$(TOOLS)/buf format --write proto

.PHONY: breaking
breaking: $(TOOLS)/.built .proto-deps/.copied ## Fail if the protos break clients of AGAINST (default: the main branch of origin, else the commit before)
	@against='$(AGAINST)'; \
	if [ -z "$$against" ]; then \
		if git rev-parse --verify -q origin/main >/dev/null && [ "$$(git rev-parse origin/main)" != "$$(git rev-parse HEAD)" ]; then against=origin/main; \
		elif git rev-parse --verify -q HEAD~1 >/dev/null; then against=HEAD~1; fi; \
	fi; \
	if [ -z "$$against" ] || [ -z "$$(git ls-tree --name-only "$$against" -- proto)" ]; then \
		echo 'breaking: nothing earlier to compare with'; exit 0; \
	fi; \
	rm -rf .proto-deps/against && mkdir -p .proto-deps/against && git archive "$$against" buf.yaml proto | tar -x -C .proto-deps/against; \
	mkdir -p .proto-deps/against/.proto-deps && cp -r .proto-deps/googleapis .proto-deps/protovalidate .proto-deps/against/.proto-deps/; \
	echo "breaking: against $$against"; $(TOOLS)/buf breaking --against .proto-deps/against

.PHONY: tidy
tidy: ## Tidy both module files
	$(GO) mod tidy

$(TOOLS)/.built: tools.mod tools.sum
	mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) GOFLAGS=-modfile=tools.mod $(GO) install tool
	touch $@

# Fetched by their checksummed versions, through the module proxy that the build uses anyway.
.proto-deps/.copied: Makefile
	mkdir -p .proto-deps/googleapis/google/api .proto-deps/protovalidate/buf/validate
	src=$$($(GO) mod download -json $(GOOGLEAPIS_MODULE) | sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p'); \
		install -m 644 "$$src"/third_party/googleapis/google/api/{annotations,http,httpbody}.proto .proto-deps/googleapis/google/api/
	src=$$($(GO) mod download -json $(PROTOVALIDATE_MODULE) | sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p'); \
		install -m 644 "$$src"/proto/protovalidate/buf/validate/validate.proto .proto-deps/protovalidate/buf/validate/
	touch $@
