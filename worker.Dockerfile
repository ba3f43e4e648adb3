# One image for every process of Patrol: web, worker, beat, the mail catcher, and each `patrol` command.
# compose.yaml builds and runs it; docs/containers.md says how, and what of it was proved.
#
#   docker build -f worker.Dockerfile -t patrol .
#
# The steps are scripts/image.sh's, which the tests run as well. Nothing is written outside /data and /tmp, so the
# root file system may be read-only. Secrets come as mounted files that PATROL_..._FILE settings name, or as a
# directory of keys at /data/keys; none is in the image.

# A tag moves as Python and Debian are mended; a digest does not: --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY scripts/image.sh scripts/python_env.sh scripts/
# Before the code: a change of it does not install the packages again.
COPY requirements.lock ./
RUN scripts/image.sh build /app
COPY pyproject.toml README.md LICENSE ./
COPY notifier notifier
COPY scanner scanner
RUN scripts/image.sh install /app

FROM ${PYTHON_IMAGE}
RUN --mount=type=bind,source=scripts,target=/scripts /scripts/image.sh system
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH \
    HOME=/data \
    PATROL_DATA_DIR=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /data
USER 10001:10001
# Of the default command; compose.yaml names each service's own.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["patrol", "healthcheck", "worker"]
STOPSIGNAL SIGTERM
CMD ["patrol", "worker"]
