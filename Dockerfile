# The image of orphan-sweeper: the binary on distroless/cc (it needs glibc and nothing else), without a shell,
# as uid 65532, with a read-only root. /reports is the one place that it writes to.
#
# Build. RUNTIME_IMAGE has no default, because the distroless images are not on the engine's default registry: give
# the full name under which your registry or mirror has them, best with its digest.
#
#   docker build --build-arg RUNTIME_IMAGE=<your registry>/distroless/cc-debian12:nonroot -t orphan-sweeper .
#
# Run. The volume holds the ledger: keep it. A folder in its place must belong to uid 65532. On SIGTERM the batch in
# flight is finished first, which can take a slow store some minutes.
#
#   docker run -d --name orphan-sweeper --restart unless-stopped --stop-timeout 200 \
#     --read-only --cap-drop ALL --security-opt no-new-privileges \
#     -v orphan-sweeper-reports:/reports \
#     -v "$PWD/config.toml:/etc/orphan-sweeper/config.toml:ro" \
#     --env-file secrets.env \
#     orphan-sweeper
#
# The same image runs one command: put it at the end, for example `orphan-sweeper doctor` or `orphan-sweeper audit`.

# The same Debian release as the runtime image, so that the glibc is never newer than the one it will meet.
ARG BUILD_IMAGE=rust:1-bookworm
ARG RUNTIME_IMAGE

FROM ${BUILD_IMAGE} AS build
WORKDIR /build

# The dependencies are a layer of their own, which only a change of Cargo.toml or Cargo.lock builds anew.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin orphan-sweeper \
    && rm -r src

# cargo compares modification times: without `touch`, sources older than the stand-ins would count as built.
COPY . .
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin orphan-sweeper \
    && mkdir /empty

FROM ${RUNTIME_IMAGE}
COPY --from=build /build/target/release/orphan-sweeper /usr/local/bin/orphan-sweeper
# An empty folder with its owner, before VOLUME: a new volume takes both over.
COPY --from=build --chown=65532:65532 /empty /reports
VOLUME /reports
WORKDIR /
USER 65532:65532

# What the configuration would place beside itself has to live in the volume. SQLite spills large sorts into unnamed
# files, and there is no writable /tmp.
ENV ORPHAN_SWEEPER__LEDGER__PATH=/reports/ledger.sqlite3 \
    ORPHAN_SWEEPER__REPORTS__DIRECTORY=/reports \
    ORPHAN_SWEEPER__DELETION__STOP_FILE=/reports/STOP \
    SQLITE_TMPDIR=/reports

# The API and /metrics, once ORPHAN_SWEEPER__SERVE__LISTEN=0.0.0.0:8080 lets others than the container itself reach them.
EXPOSE 8080

# The configuration is looked for at /etc/orphan-sweeper/config.toml.
HEALTHCHECK --interval=5m --timeout=30s --start-period=1m \
    CMD ["/usr/local/bin/orphan-sweeper", "history", "--healthy"]
ENTRYPOINT ["/usr/local/bin/orphan-sweeper"]
CMD ["serve"]
