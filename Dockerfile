# One image for the three roles: `docker run IMAGE stock`, `estimate` or `ads`.
# `docker buildx build --platform linux/amd64,linux/arm64 .` builds both kinds, each on or emulating its own machine.

# The version in rust-toolchain.toml; that file itself would make rustup download clippy and rustfmt.
ARG RUST_VERSION=1.95.0

# Not the slim variant: this one has the C and C++ compiler, make and perl that librdkafka, OpenSSL and zstd are
# built with. Its Debian must not be newer than that of the image below, whose C library it links to.
FROM rust:${RUST_VERSION}-bookworm AS build
WORKDIR /build
ENV CARGO_INCREMENTAL=0

# The dependencies, in a layer that only a change of the manifest or the lock file builds anew.
# Cargo refuses a manifest whose benches or workspace members have no files, so each gets an empty one: the image is
# built without them.
COPY Cargo.toml Cargo.lock ./
COPY crates/kafka-broker/Cargo.toml crates/kafka-broker/
RUN mkdir -p src crates/kafka-broker/src benches/cluster \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs crates/kafka-broker/src/lib.rs benches/cluster/main.rs \
    && cargo build --locked --release --no-default-features --features tls

COPY schemas schemas
COPY src src
# Cargo goes by the time of change, and COPY keeps that of the files, which may lie before the build above.
RUN touch src/main.rs src/lib.rs \
    && cargo build --locked --release --no-default-features --features tls

FROM gcr.io/distroless/cc-debian13:nonroot
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="vehicle-platform" \
      org.opencontainers.image.description="An event-driven vehicle platform on Apache Kafka: stock, price estimates and ads in one executable" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian13:nonroot"
COPY --from=build /build/target/release/vehicle-platform /usr/local/bin/vehicle-platform
# Whoever can reach the container can reach its port; what is reached from outside is for `-p` to say.
ENV HOST=0.0.0.0
ENTRYPOINT ["/usr/local/bin/vehicle-platform"]
# Asks the role on PORT, which has to be set.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/vehicle-platform", "healthcheck"]
