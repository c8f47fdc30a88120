# Thin: each target calls one tool. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build fmt lint test test-rust test-stack test-in-cluster tools images cluster-up cluster-down demo demo-down bench generate oracle fuzz fuzz-api

TARGET := $(or $(CARGO_TARGET_DIR),target)
# Always the whole workspace: with `-p` cargo would choose other features for shared crates and compile them again.
PSTACK = cargo build --quiet --workspace --bins && $(TARGET)/debug/pstack
PSTACK_RELEASE = cargo build --release --workspace --bins && $(TARGET)/release/pstack

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install the Debian packages that tests and demo need
	./e2e/setup.sh

build: ## Build both programs (debug)
	cargo build --workspace

fmt: ## Format the code
	cargo fmt --all

lint: ## Formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings

test: setup lint test-rust test-stack ## Everything that proves the project

test-rust: ## Unit and integration tests of the crates, on real services and a real API server
	$(PSTACK) build-tools
	cargo test --workspace --no-fail-fast

test-stack: ## The product on a cluster of its own: pods, real clients, a real browser
	$(PSTACK) with-cluster -- $(MAKE) --no-print-directory test-in-cluster

test-in-cluster:
	cargo test --workspace --test stack -- --test-threads=1

generate: ## Write the generated files again (CRD, RBAC, golden files, references, OpenAPI)
	UPDATE=1 cargo test --workspace --test server --test operator -- generated golden

oracle: ## Compare N=100000 answers of the cache with those of Prometheus itself; not part of `make test`
	ORACLE_DRAWS=$(or $(N),100000) cargo test --workspace --test server -- --nocapture oracle::every_answer

fuzz: ## Feed broken input to the parsers for SECONDS=60; not part of `make test`
	FUZZ_SECONDS=$(or $(SECONDS),60) cargo test --workspace --test server -- --ignored --nocapture fuzz_for_a_while

fuzz-api: ## Run schemathesis over the API (EXAMPLES=50); not part of `make test`
	./e2e/fuzz-api.sh

tools: ## Build Kubernetes and the other Go programs of the test cluster (cached)
	$(PSTACK) build-tools

images: ## Write the container images to target/images
	$(PSTACK_RELEASE) images

cluster-up: ## Start a one-node Kubernetes in a network namespace of its own
	$(PSTACK) cluster up

cluster-down: ## Stop it and remove every trace
	$(PSTACK) cluster down

demo: ## The whole product on a real Kubernetes, with sample dashboards
	$(PSTACK_RELEASE) demo up

demo-down: ## Remove the demo and its cluster
	$(PSTACK_RELEASE) demo down

bench: ## Measure against nginx, Perses, Prometheus and Thanos on one pinned core, interleaved
	$(PSTACK_RELEASE) bench
	$(TARGET)/release/pstack bench-queries
