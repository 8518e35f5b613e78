FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make perl pkg-config libsasl2-dev libssl-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
ENV CARGO_INCREMENTAL=0 CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=debuginfo

# The dependencies: a layer that stays as long as the manifests do.
COPY Cargo.toml Cargo.lock ./
COPY loadtest/Cargo.toml loadtest/
COPY tests/support/build.rs tests/support/
RUN mkdir -p src loadtest/src loadtest/benches \
 && echo 'fn main() {}' | tee src/main.rs loadtest/src/main.rs >loadtest/benches/intake.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --features tls,sasl,zstd

# The crate's page and built-in configuration are part of the binary.
COPY ARCHITECTURE.md ./
COPY config config
COPY src src
# Newer than the stand-ins above, whatever time the sources carry.
RUN find src -name '*.rs' -exec touch {} + \
 && cargo build --release --locked --features tls,sasl,zstd

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libsasl2-2 libsasl2-modules-gssapi-mit libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o 10001 -g 10001 /data
COPY --from=build /build/target/release/sluice /usr/local/bin/sluice
COPY LICENSE /usr/share/doc/sluice/LICENSE
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
ENV SLUICE__HTTP__LISTEN=0.0.0.0:8888 SLUICE__DATA_DIR=/data
VOLUME /data
EXPOSE 8888 9102
ENTRYPOINT ["/usr/local/bin/sluice"]
