# A worker image: built with the same script as a checkout, run as nobody, on a read-only root.
FROM python:3.11-slim-bookworm AS build
WORKDIR /opt/patrol
COPY . .
RUN sh scripts/setup.sh run

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data patrol && install -d -o patrol /data
COPY --from=build /opt/patrol /opt/patrol
USER patrol
WORKDIR /data
ENV PATROL_DATA_DIR=/data PATH=/opt/patrol/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
VOLUME /data
HEALTHCHECK --interval=30s --timeout=10s CMD ["patrol", "doctor"]
CMD ["patrol", "worker"]
