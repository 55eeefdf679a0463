.DEFAULT_GOAL := help

COMPOSE := docker compose --project-directory compose --profile observability

SCRIPTS := .ci/run compose/smoke compose/up tests/chaos/broken tests/cluster/cluster tests/cluster/test tests/cluster/with \
	tests/upgrade/upgrade

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

.PHONY: dev
dev: ## Run the whole platform in one process, with nothing installed
	cargo run --release -- dev

.PHONY: up
up: ## Start the cluster, 17 containers, and wait until all are healthy
	@compose/up

.PHONY: down
down: ## Stop it; what it keeps stays
	$(COMPOSE) down --remove-orphans

.PHONY: logs
logs: ## Follow its log; SERVICE=stock that of one service
	$(COMPOSE) logs --follow --tail 100 $(SERVICE)

.PHONY: ps
ps: ## List its containers
	$(COMPOSE) ps --all

.PHONY: smoke
smoke: ## Post a vehicle to it, and wait for the ad
	@compose/smoke

.PHONY: test
test: ## Run the tests
	cargo test --workspace --lib --bins --tests
	cargo test --workspace --doc

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

.PHONY: chaos
chaos: ## Kill, stop and cut off every part under load, and check what is lost; CHAOS_MINUTES=10, CHAOS_SEED=any
	CHAOS_MINUTES=$${CHAOS_MINUTES:-10} tests/cluster/with cargo test --test chaos whatever -- --nocapture

.PHONY: chaos-broken
chaos-broken: ## Show that make chaos can fail: run it against a build that loses vehicles
	tests/chaos/broken

.PHONY: upgrade
upgrade: ## Upgrade from the older release under load, go back, and forward again; UPGRADE_SECONDS=15, UPGRADE_SEED=any
	tests/upgrade/upgrade

.PHONY: backlog
backlog: ## Let 100,000 vehicles wait in the estimators while Kafka is restarted node by node
	cargo build --release
	CHAOS_BINARY=$(CURDIR)/target/release/vehicle-platform BACKLOG_VEHICLES=$${BACKLOG_VEHICLES:-100000} \
	BACKLOG_PROCESSING_TIME=$${BACKLOG_PROCESSING_TIME:-4m} \
	tests/cluster/with cargo test --test chaos vehicles_that_wait -- --nocapture

.PHONY: bench
bench: ## Measure the platform on the cluster and compare it with its engines alone; BENCH=post,latency,overload,relay,pages,estimate,ads,waiting,pipeline
	tests/cluster/with cargo bench --bench cluster

.PHONY: lint
lint: ## Check format, lints, documentation and scripts, with and without the embedded platform
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
	shellcheck --external-sources --source-path=SCRIPTDIR $(SCRIPTS)

.PHONY: clean
clean: ## Remove what was built, the data of make dev, and the cluster with its data and passwords
	cargo clean
	rm -rf data
	@if docker info >/dev/null 2>&1; then $(COMPOSE) down --volumes --remove-orphans --rmi local && rm -rf compose/secrets; fi
