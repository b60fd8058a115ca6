# The two images, each the program and the libraries that it is linked with, and nothing else: no shell, no packages.
#
#   docker build --target limiter --tag quorate/ratelimiter:0.1.0 .
#   docker build --target operator --tag quorate/operator:0.1.0 .
#
# `make images` makes the same from programs that are built already.
FROM rust:1.95-slim-bookworm AS source
WORKDIR /source
COPY . .

FROM source AS limiter-build
RUN cargo build --locked --release --package quorate-node && images/collect target/release/ratelimiter /image

FROM source AS operator-build
RUN cargo build --locked --release --package quorate-operator && images/collect target/release/quorate-operator /image

FROM scratch AS operator
LABEL org.opencontainers.image.title="Quorate: the operator" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=operator-build /image /
USER 65532:65532
ENTRYPOINT ["/quorate-operator"]

FROM scratch AS limiter
LABEL org.opencontainers.image.title="Quorate: a node of a cluster of rate limiters" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=limiter-build /image /
USER 65532:65532
ENTRYPOINT ["/ratelimiter"]
