# Thin: each target calls one tool. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build fmt lint test test-rust test-browser tools images cluster-up cluster-down demo demo-down bench generate

PROFILE ?= release
PSTACK := cargo run --quiet --package e2e --bin pstack --

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

test: setup lint test-rust test-browser ## Everything that proves the project

test-rust: ## Unit, integration and end-to-end tests of the crates
	cargo test --workspace --no-fail-fast

test-browser: ## The web UI in a real browser
	$(PSTACK) browser-test

generate: ## Write the generated files again (CRD, RBAC, golden files)
	UPDATE=1 cargo test --package persesstack-operator --test it -- generated golden

tools: ## Build Kubernetes and the other Go programs of the test cluster (cached)
	$(PSTACK) build-tools

images: ## Write the container images to target/images
	$(PSTACK) images --profile $(PROFILE)

cluster-up: ## Start a one-node Kubernetes in a network namespace of its own
	$(PSTACK) cluster up

cluster-down: ## Stop it and remove every trace
	$(PSTACK) cluster down

demo: ## The whole product on a real Kubernetes, with sample dashboards
	$(PSTACK) demo up

demo-down: ## Remove the demo and its cluster
	$(PSTACK) demo down

bench: ## Measure against nginx on one pinned core, interleaved
	cargo build --release --package perses-api-server
	$(PSTACK) bench
