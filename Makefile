# Everything a person or a machine runs here. `make help` lists it.

CARGO ?= cargo
# Seeds of the simulation: how many, and the first.
SEEDS ?= 500
FIRST ?= 0
# The benchmark: rounds over all its rows, and seconds of each row in each round.
RUNS ?= 5
SECONDS ?= 20

# How long each parser is fuzzed, and which; all of them unless named.
FUZZ ?= 600s
PARSERS ?=

TARGET = $(abspath $(or $(CARGO_TARGET_DIR),target))

.PHONY: help build run images test test-faults test-doors fuzz simulate bench generate kubernetes-up kubernetes-down \
	test-kubernetes smoke-kubernetes chaos-operator verify fix

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

build: ## The node, as ./ratelimiter
	$(CARGO) build --locked --release --package quorate-node
	cp $(TARGET)/release/ratelimiter ratelimiter

run: build ## Three nodes on ports 20001 to 20003, with data below ./data
	./ratelimiter dev

images: ## Images of node and operator, below target/images: for docker load, kind load image-archive, ctr images import
	$(CARGO) build --locked --release --package quorate-node --package quorate-operator
	images/build

test: ## Everything: units, properties, the simulation, clusters of processes
	@echo "== building the program that the cluster tests start"
	$(CARGO) build --locked --package quorate-node
	@echo "== testing; the simulation runs $(SEEDS) seeds"
	SEEDS=$(SEEDS) FIRST=$(FIRST) $(CARGO) test --locked --workspace --no-fail-fast
	@echo "== feeding every parser"
	CARGO="$(CARGO)" tests/fuzz.sh 20000

fuzz: ## Every parser under a fuzzer, ten minutes each: make fuzz PARSERS="frame batch" FUZZ=60s for fewer and shorter
	CARGO="$(CARGO)" tests/fuzz.sh $(FUZZ) $(PARSERS)

test-faults: ## Faults of clocks, networks, disks and doors; needs root and Debian packages, which it installs
	CARGO="$(CARGO)" tests/faults.sh

test-doors: ## The doors with a real Envoy, nginx and k6 before them, which it fetches or builds (k6: Go)
	CARGO="$(CARGO)" tests/doors.sh

simulate: ## Only the simulation: make simulate SEEDS=1000 FIRST=5000
	$(CARGO) run --locked --package quorate-tests --bin simulate -- --seeds $(SEEDS) --first $(FIRST)

generate: ## What comes from the resources' definitions and from the chart: manifests, and two pages of docs
	$(CARGO) build --locked --package quorate-crds --bin crdgen
	@mkdir -p manifests/crds
	for what in ratelimitclusters quotapolicies; do \
	$${CARGO_TARGET_DIR:-target}/debug/crdgen $$what >manifests/crds/$$what.yaml || exit 1; done
	for what in resources operations; do \
	$${CARGO_TARGET_DIR:-target}/debug/crdgen $$what >docs/$$what.md || exit 1; done
	cp manifests/crds/*.yaml helm/quorate/files/crds
	helm/render

kubernetes-up: ## A Kubernetes of three nodes on this machine, to test on (Linux, root, Go); the first time it takes minutes
	tests/kubernetes/up

kubernetes-down: ## Stops it and leaves nothing behind
	tests/kubernetes/down

test-kubernetes: ## The operator on that Kubernetes: starts it, runs every scenario, and stops it
	CARGO="$(CARGO)" tests/kubernetes/test

smoke-kubernetes: build ## That Kubernetes by itself: starts it, does to its nodes all that can be done, and stops it
	tests/kubernetes/smoke-test

chaos-operator: ## On the Kubernetes that runs: an operator that ends before and after each of its writes, from founding to deletion
	STOP_AT=all tests/kubernetes/scenarios stops::

bench: ## How fast it is, about 27 minutes; make bench RUNS=1 SECONDS=3 for a quick look
	@command -v wrk >/dev/null || { echo "== installing wrk, the load generator"; \
	sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); $$sudo apt-get update && $$sudo apt-get install --yes wrk; }
	@echo "== building the program, the bare server and the benchmark, optimised"
	$(CARGO) build --locked --release --package quorate-node
	$(CARGO) build --locked --release --package quorate-tests --bin bare_axum --bin bench
	@mkdir -p $(TARGET)/bench
	RATELIMITER_BIN=$(TARGET)/release/ratelimiter TMPDIR=$(TARGET)/bench \
	$(TARGET)/release/bench --runs $(RUNS) --seconds $(SECONDS)

verify: ## Formatting, lints and documentation; writes nothing
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings
	$(CARGO) clippy --locked --workspace --test faults --test doors --test kubernetes -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --no-deps
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --locked check; \
	else echo "cargo-deny is not installed: licences and advisories (deny.toml) were not checked"; fi

fix: ## Formats, and lets clippy mend what it can
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all
