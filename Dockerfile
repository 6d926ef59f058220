# The images of compose.yaml and of the manifests in istio/: app-frontend, app-service, model-service and,
# for Docker users, Envoy with the filter. (wasm-plugins/Dockerfile is the filter alone, as Istio takes it.)
#
#   docker build --target app-service --tag registry.example/app-service .
#
# Two arguments are for those who have no registry: BINARIES names an image whose /out holds what is
# built here otherwise, and ENVOY_IMAGE one with an `envoy` on its PATH. `cargo xtask e2e compose`
# makes both from nothing but files of this machine.
ARG BINARIES=build
ARG ENVOY_IMAGE=envoyproxy/envoy:v1.38.2

# On Alpine, Rust links statically with musl.
FROM rust:1.95.0-alpine AS build
WORKDIR /source
COPY . .
RUN cargo build --locked --release --package app-frontend --package app-service --package model-service \
      --package lanekeeper-cli \
 && cargo build --locked --profile wasm --target wasm32-wasip1 --package lanekeeper-filter \
 && mkdir /out \
 && cp target/release/app-frontend target/release/app-service target/release/model-service \
       target/release/lanekeeper \
       target/wasm32-wasip1/wasm/lanekeeper.wasm /out

FROM ${BINARIES} AS binaries

FROM scratch AS app-service
COPY --from=binaries /out/app-service /app-service
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/app-service"]

FROM scratch AS app-frontend
COPY --from=binaries /out/app-frontend /app-frontend
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/app-frontend"]

FROM scratch AS model-service
COPY --from=binaries /out/model-service /model-service
COPY services/model-service/models/*-stable.json \
     services/model-service/models/*-canary.json \
     services/model-service/models/*-shadow.json /models/
USER 65532:65532
EXPOSE 8081
ENTRYPOINT ["/model-service"]

FROM ${ENVOY_IMAGE} AS envoy
COPY --from=binaries /out/lanekeeper /out/lanekeeper.wasm /
USER 65532:65532
ENTRYPOINT ["/lanekeeper", "envoy", "--module=/lanekeeper.wasm", "--dir=/run/lanekeeper"]
CMD ["--help"]
