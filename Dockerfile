FROM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
# When the sources were made, RFC 3339: a clock that is before it is wrong.
ARG BUILT=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
        -ldflags "-s -w -X main.version=${VERSION} -X main.built=${BUILT}" \
        -o /out/renewatch ./cmd/renewatch
# A new volume takes over owner and mode of the directory in the image, and COPY
# keeps the mode only of what is inside the directory it copies.
RUN mkdir -p -m 0700 /out/root/var/lib/renewatch

FROM scratch
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="renewatch" \
      org.opencontainers.image.description="ACME renewal watchdog: proves by handshakes that renewed certificates are served" \
      org.opencontainers.image.source="https://github.com/renewatch/renewatch" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/renewatch /renewatch
COPY --from=build /out/root/ /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/ \
    RENEWATCH_STATE_DIR=/var/lib/renewatch
# Root, because certbot's tree is 0700 root; it needs no capability: run it with
# --cap-drop ALL --read-only --security-opt no-new-privileges. Where another user
# may read the certificates: --user 65532:65532, and a state volume of that user.
USER 0:0
# The configuration is expected in /etc/renewatch/renewatch.yaml. Mount certificate
# directories whole (all of /etc/letsencrypt: live/ links into archive/); a file
# mounted by itself never changes in here.
VOLUME /var/lib/renewatch
# Only the docker image format keeps this line (buildah, podman: --format docker).
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s --retries=3 CMD ["/renewatch", "health"]
ENTRYPOINT ["/renewatch"]
CMD ["run"]
