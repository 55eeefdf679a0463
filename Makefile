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

.PHONY: lint
lint: ## Check format and lints, with and without the embedded platform
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings

.PHONY: clean
clean: ## Remove what was built, and the data of make dev
	cargo clean
	rm -rf data
