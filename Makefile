.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

.PHONY: dev
dev: ## Run the whole platform in one process, with nothing installed
	cargo run --release -- dev

.PHONY: test
test: ## Run the tests
	cargo test --all-targets

.PHONY: cluster-up
cluster-up: ## Start the production topology as plain processes, installing what is missing
	tests/cluster/cluster up
	@tests/cluster/cluster status

.PHONY: cluster-down
cluster-down: ## Stop it; DATA=1 removes its data, too
	tests/cluster/cluster down $(if $(DATA),--data)

.PHONY: test-cluster
test-cluster: ## Run the tests that can run on the real engines on them
	tests/cluster/test

.PHONY: lint
lint: ## Check format and lints, with and without the embedded platform
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings

.PHONY: clean
clean: ## Remove what was built, and the data of make dev
	cargo clean
	rm -rf data
