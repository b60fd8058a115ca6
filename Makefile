# Everything a fresh machine with Rust needs; `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help build run test simulate verify fix

# Seeds of the simulation: how many, and the first.
SEEDS ?= 500
FIRST ?= 0

say = @printf '\n==> %s\n'

help: ## Lists the targets.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

build: ## Builds the release binary and leaves it here as ./ratelimiter.
	$(say) 'building the release binary: some minutes the first time'
	cargo build --release --locked --package quorate-node --bin ratelimiter
	install -m 755 "$${CARGO_TARGET_DIR:-target}/release/ratelimiter" ratelimiter

run: build ## Runs a local cluster of three nodes.
	./ratelimiter dev

test: ## Runs all tests: units, simulation, local clusters of real processes.
	$(say) 'building the binaries that the tests run'
	cargo build --locked --workspace --bins
	$(say) 'building and running all tests: units, $(SEEDS) simulated seeds, local clusters of processes'
	SEEDS=$(SEEDS) FIRST=$(FIRST) cargo test --locked --workspace

simulate: ## Runs the simulation only: make simulate SEEDS=1000 FIRST=5000.
	$(say) 'simulating $(SEEDS) seeds from $(FIRST) on'
	SEEDS=$(SEEDS) FIRST=$(FIRST) cargo test --locked --package quorate-tests --test simulation -- --nocapture

verify: ## Checks format, lints, docs and licences; changes no file.
	$(say) 'format'
	cargo fmt --all --check
	$(say) 'lints'
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(say) 'docs'
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items
	$(say) 'licences, sources and advisories of dependencies'
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check; \
	else echo 'not checked: cargo-deny is not installed (cargo install cargo-deny)'; fi

fix: ## Formats, and applies what clippy can repair.
	cargo clippy --locked --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all
