.DEFAULT_GOAL := help

# With each profile, so that no container of one is left out. The profile `tools` contains none that stays.
COMPOSE := cd compose && docker compose --profile observability --profile console

# The version of cargo-deny.
CARGO_DENY := 0.20.2
# The versions of the tools of a release.
CARGO_CYCLONEDX := 0.5.9
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

# The name, and the version, of the image of `make image`.
IMAGE ?= vehicle-platform:dev
VERSION ?= dev

SCRIPTS := .ci/dist .ci/release-notes .ci/run compose/smoke compose/up crates/kafka-broker/corpus/record tests/api/check tests/chaos/broken tests/cluster/cluster tests/cluster/test tests/cluster/with \
	tests/console/check tests/kubernetes/check tests/upgrade/upgrade

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: dev
dev: ## Run the whole platform in one process, without installing anything
	@[ -x target/debug/vehicle-platform ] || \
	echo 'Building the platform. The first build takes about four minutes on two cores, later ones take seconds.'
	cargo run --locked -- dev

.PHONY: up
up: ## Start the cluster of 17 containers, or of 14 without ZooKeeper with KRAFT=1, and wait until all are healthy
	@compose/up

.PHONY: down
down: ## Stop the cluster and retain its data; DATA=1 also removes its data, of both modes, and its passwords
ifeq ($(DATA),1)
	@set -e; for mode in zookeeper kraft; do \
	(export COMPOSE_FILE=compose.yaml:$$mode.yaml; $(COMPOSE) down --volumes --remove-orphans); done
	rm -rf compose/secrets
else
	$(COMPOSE) down --remove-orphans
endif

.PHONY: logs
logs: ## Follow the logs of the cluster; SERVICE=stock selects a service
	$(COMPOSE) logs --follow --tail 100 $(SERVICE)

.PHONY: ps
ps: ## List the containers of the cluster
	$(COMPOSE) ps --all

.PHONY: smoke
smoke: ## Post a vehicle to the cluster and wait for its ad
	@compose/smoke

.PHONY: audit
audit: ## Reconcile the vehicles of the cluster with its ads; ARGS=--repair announces those without an ad
	$(COMPOSE) run --rm --no-TTY audit $(ARGS)

.PHONY: dlq
dlq: ## List the dead letters of the cluster; ARGS='show stock.vehicle-created/0/12'
	$(COMPOSE) run --rm --no-TTY dlq $(ARGS)

.PHONY: test
test: ## Run the tests
	cargo test --workspace --lib --bins --tests
	cargo test --workspace --doc

.PHONY: test-api
test-api: ## Check the HTTP APIs with validators, schemathesis and a browser; API_EXAMPLES=100, API_SEED=<number>
	tests/api/check

.PHONY: test-console
test-console: ## Use the page of the console in a browser; the pictures are in target/console; UPDATE=1 writes those of the documentation
	tests/console/check $(if $(UPDATE),--update)

.PHONY: test-clients
test-clients: ## Check the embedded broker with clients in Java, Python, Node and Go; UPDATE=1 writes the table to its README, CLIENTS=go runs a part
	tests/clients/check $(if $(UPDATE),--update) $(CLIENTS)

.PHONY: test-kubernetes
test-kubernetes: ## Build the manifests in compose/kubernetes and validate them against the schemas of Kubernetes; needs Go
	tests/kubernetes/check

.PHONY: kubernetes-alerts
kubernetes-alerts: ## Write the alert rules of compose/prometheus to the manifests
	@file=compose/kubernetes/monitoring/alerts.yaml && \
	{ sed '/^spec:$$/q' $$file && sed 's/^./  &/' compose/prometheus/alerts.yml; } >$$file.new && mv $$file.new $$file

.PHONY: test-tls
test-tls: ## Test TLS and passwords towards Kafka, the schema registry, PostgreSQL and MongoDB; installs missing engines
	engines=$$(tests/cluster/cluster install) && eval "$$engines" && \
	OPENSSL_NO_VENDOR=1 REQUIRE_ENGINES=1 cargo test --features tls --test tls

.PHONY: fuzz
fuzz: ## Send mutated requests, batches and journal entries through the embedded broker; FUZZ_RUNS=10000000, FUZZ_SEED=<number>
	FUZZ_RUNS=$${FUZZ_RUNS:-10000000} cargo test --release -p embedded-kafka-broker --lib fuzz -- --nocapture

.PHONY: broker-speed
broker-speed: ## Measure the embedded broker: produce, start, memory, fetch; SPEED_RECORDS=1000000, SPEED_CODEC=none, SPEED_BATCH=1000
	cargo build --release -p embedded-kafka-broker --example speed
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	target/release/examples/speed fill "$$dir" $${SPEED_RECORDS:-1000000} $${SPEED_CODEC:-none} $${SPEED_BATCH:-1000} && \
	target/release/examples/speed start "$$dir"

.PHONY: cluster-up
cluster-up: ## Start the production topology as plain processes; installs missing engines; CLUSTER=kraft, here and below, runs Kafka 4 without ZooKeeper
	tests/cluster/cluster up
	@tests/cluster/cluster status

.PHONY: cluster-down
cluster-down: ## Stop these processes; DATA=1 also removes their data
	tests/cluster/cluster down $(if $(filter 1,$(DATA)),--data)

.PHONY: test-cluster
test-cluster: ## Run the tests of the real engines on these processes
	tests/cluster/test

.PHONY: chaos
chaos: ## Kill, pause and disconnect every part under load and check that nothing is lost; CHAOS_MINUTES=10, CHAOS_SEED=<number>
	CHAOS_MINUTES=$${CHAOS_MINUTES:-10} tests/cluster/with cargo test --test chaos whatever_fails -- --nocapture

.PHONY: chaos-load
chaos-load: ## The same, judged by vehicle-platform load alone; CHAOS_MINUTES=10, CHAOS_SEED=<number>
	CHAOS_MINUTES=$${CHAOS_MINUTES:-10} tests/cluster/with cargo test --test chaos the_load_finds -- --nocapture

.PHONY: chaos-broken
chaos-broken: ## Verify that make chaos and make chaos-load detect a build that loses vehicles
	tests/chaos/broken

.PHONY: upgrade
upgrade: ## Upgrade from the older release under load, downgrade, and upgrade again; UPGRADE_SECONDS=15, UPGRADE_SEED=<number>
	tests/upgrade/upgrade

.PHONY: backlog
backlog: ## Restart Kafka node by node while 100,000 vehicles wait in the estimators
	cargo build --release
	CHAOS_BINARY="$(CURDIR)/target/release/vehicle-platform" BACKLOG_VEHICLES=$${BACKLOG_VEHICLES:-100000} \
	BACKLOG_PROCESSING_TIME=$${BACKLOG_PROCESSING_TIME:-4m} \
	tests/cluster/with cargo test --test chaos vehicles_that_wait -- --nocapture

.PHONY: bench
bench: ## Benchmark the platform against its engines alone on the cluster; BENCH=post,latency,overload,relay,pages,estimate,ads,waiting,pipeline
	tests/cluster/with cargo bench --bench cluster

.PHONY: lint
lint: ## Check formatting, lints, documentation and scripts, with and without the embedded platform
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
# The two that people run, make dev and the image, lack the features that the dependencies of tests enable.
	cargo check
	cargo clippy --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
	shellcheck --external-sources --source-path=SCRIPTDIR $(SCRIPTS)

.PHONY: deny
deny: ## Check licenses, versions and sources of the dependencies; ADVISORIES=1 also checks for known vulnerabilities
	@cargo deny --version 2>/dev/null | grep -qxF 'cargo-deny $(CARGO_DENY)' || \
	cargo install cargo-deny --version $(CARGO_DENY) --locked --debug
	cargo deny --locked check bans licenses sources $(if $(ADVISORIES),advisories)

.PHONY: lint-workflows
lint-workflows: ## Check the GitHub workflows and the scripts in them; needs Go
	go run $(ACTIONLINT)

.PHONY: dist
dist: ## Pack the release binary, with TLS, man pages and completions, into target/packages
	cargo build --locked --profile dist --features tls
	.ci/dist "$${CARGO_TARGET_DIR:-target}/dist/vehicle-platform" target/packages
	@$(MAKE) --no-print-directory checksums

.PHONY: checksums
checksums: ## Write SHA256SUMS of the files in target/packages
	cd target/packages && sha256sum vehicle-platform* >SHA256SUMS

.PHONY: sbom
sbom: ## Write the bill of materials of the executable to target/packages, as CycloneDX
	@cargo cyclonedx --version 2>/dev/null | grep -qwF '$(CARGO_CYCLONEDX)' || \
	cargo install cargo-cyclonedx --version $(CARGO_CYCLONEDX) --locked --debug
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) cargo cyclonedx --format json --spec-version 1.5 --features tls
	@mkdir -p target/packages && mv vehicle-platform.cdx.json target/packages && rm -f crates/*/*.cdx.json

.PHONY: release-notes
release-notes: ## Print the changes of the version TAG=v1.2.3, which must be that of Cargo.toml
	@.ci/release-notes "$(TAG)"

.PHONY: image
image: ## Build the image of the roles; IMAGE=<name>:<tag>, VERSION=<version>
	docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) --tag $(IMAGE) .

.PHONY: clean
clean: ## Remove build output, the data of make dev, and the cluster of this folder with its data and passwords
	@if ! [ -d compose/secrets ]; then :; \
	elif docker info >/dev/null 2>&1; then $(MAKE) --no-print-directory down DATA=1; \
	else echo 'Docker does not answer, so the cluster and its data remain' >&2; fi
	rm -rf data
	@if command -v cargo >/dev/null; then cargo clean; else rm -rf target; fi
