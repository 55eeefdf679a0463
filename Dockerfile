# One image for the three roles: `docker run IMAGE stock`, `estimate` or `ads`.
# `docker buildx build --platform linux/amd64,linux/arm64 .` builds for both architectures, natively or in emulation.

# The same version as in rust-toolchain.toml. The file itself is not copied: with it, rustup would also download clippy
# and rustfmt.
ARG RUST_VERSION=1.95.0

# The slim variant lacks the C and C++ compilers, make and OpenSSL's headers, which the build of librdkafka and zstd
# needs. The Debian release must not be newer than that of the runtime image below, which provides the C library and
# OpenSSL.
FROM rust:${RUST_VERSION}-bookworm AS build
WORKDIR /build
ENV CARGO_INCREMENTAL=0
# Links to the OpenSSL of the runtime image, which is updated with it, instead of compiling one for minutes.
ENV OPENSSL_NO_VENDOR=1

# Builds the dependencies in a separate layer, which is rebuilt only when a manifest or the lock file changes.
# Cargo rejects a manifest whose benches or workspace members have no files. Each gets an empty file, because the image
# is built without them.
COPY Cargo.toml Cargo.lock ./
COPY crates/json-schema-compatibility/Cargo.toml crates/json-schema-compatibility/
COPY crates/kafka-broker/Cargo.toml crates/kafka-broker/
RUN mkdir -p src crates/json-schema-compatibility/src crates/kafka-broker/src benches/cluster \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs crates/json-schema-compatibility/src/lib.rs crates/kafka-broker/src/lib.rs benches/cluster/main.rs \
    && cargo build --locked --profile dist --no-default-features --features tls

COPY crates/json-schema-compatibility/src crates/json-schema-compatibility/src
COPY schemas schemas
COPY src src
# Cargo compares modification times. COPY preserves those of the files, which may be older than the build above.
RUN touch src/main.rs src/lib.rs crates/json-schema-compatibility/src/lib.rs \
    && cargo build --locked --profile dist --no-default-features --features tls

FROM gcr.io/distroless/cc-debian13:nonroot
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="vehicle-platform" \
      org.opencontainers.image.description="An event-driven vehicle platform on Apache Kafka: stock, price estimates and ads in one executable" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian13:nonroot"
COPY --from=build /build/target/dist/vehicle-platform /usr/local/bin/vehicle-platform
# Listens on all addresses of the container. `docker run -p` publishes its ports.
ENV HOST=0.0.0.0
# The C library's default, eight arenas for each core, holds up to a fifth more memory and is not faster here.
ENV MALLOC_ARENA_MAX=2
ENTRYPOINT ["/usr/local/bin/vehicle-platform"]
# Queries the role on PORT, which must be set.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/vehicle-platform", "healthcheck"]
