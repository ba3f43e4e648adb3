# The worker, and with another command the web process or beat:
#   docker build -f worker.Dockerfile -t patrol .
#   docker run --read-only --tmpfs /tmp -v patrol:/data --env-file patrol.env patrol [patrol web|worker|beat]
# Secrets come as PATROL_..._FILE settings that point to mounted files.

FROM python:3.11-slim-bookworm AS base
# Where .venv is built is where it runs: its scripts hold their full path.
WORKDIR /app

FROM base AS build
# Without the code, which .venv only points to: a change of the code does not install the packages again.
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY scripts scripts
RUN mkdir notifier scanner && touch notifier/__init__.py scanner/__init__.py && scripts/setup.sh run

FROM base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin patrol \
    && install --directory --owner=patrol --group=patrol --mode=0700 /data
COPY --from=build /app /app
COPY notifier notifier
COPY scanner scanner
RUN python -m compileall -q notifier scanner
# Nothing is written outside /data and /tmp, so the root file system may be read-only.
ENV PATH=/app/.venv/bin:$PATH \
    HOME=/data \
    PATROL_DATA_DIR=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER patrol
VOLUME /data
HEALTHCHECK --interval=60s --timeout=20s --start-period=30s --retries=3 CMD ["patrol", "doctor"]
STOPSIGNAL SIGTERM
CMD ["patrol", "worker"]
