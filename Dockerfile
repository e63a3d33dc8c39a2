# rekeyd in an image without a shell: one static binary, CA roots, and a user who is not root.
#
#   docker build -t rekeyd .                          the daemon
#   docker build --target elevensim -t elevensim .    the simulator, for trying out
#
# amd64 and arm64 are compiled on whatever builds (--platform linux/arm64). The same commit and the same base images give
# the same digest where the builder is told its time, as `make image` does it.
#
# Both base images can be replaced (--build-arg). The builder needs a shell and Go; the base needs CA roots.
ARG BUILDER=docker.io/library/golang:1.26-bookworm
ARG BASE=gcr.io/distroless/static-debian12:nonroot

FROM --platform=${BUILDPLATFORM} ${BUILDER} AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .

FROM source AS build
ARG TARGETOS TARGETARCH
ARG VERSION=dev REVISION=unknown
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=${VERSION} -X main.revision=${REVISION}" -o /out/rekeyd ./cmd/rekeyd
RUN mkdir /out/licenses && cp LICENSE /out/licenses/ && \
    GOOS=${TARGETOS} GOARCH=${TARGETARCH} deploy/notices.sh >/out/licenses/THIRD_PARTY

FROM source AS build-elevensim
ARG TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false \
    -ldflags "-s -w" -o /out/elevensim ./cmd/elevensim

FROM ${BASE} AS elevensim
COPY --from=build-elevensim /out/elevensim /elevensim
USER 65532:65532
EXPOSE 8642
ENTRYPOINT ["/elevensim"]

FROM ${BASE}
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="rekeyd" \
      org.opencontainers.image.description="Rotates the API keys of ElevenLabs service accounts and publishes them in HashiCorp Vault" \
      org.opencontainers.image.source="https://github.com/rekeyd/rekeyd" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/licenses /licenses
COPY --from=build /out/rekeyd /rekeyd
USER 65532:65532
EXPOSE 9466
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["/rekeyd", "health"]
ENTRYPOINT ["/rekeyd"]
CMD ["run"]
