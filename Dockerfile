# Exact versions. A digest would be stricter still: `make digests` writes it.
FROM python:3.13.16-slim-trixie AS build
RUN python -m venv --without-pip /venv
# LOCK=traces.lock: the same, and what docs/traces.md needs.
ARG LOCK=base.lock
COPY requirements/${LOCK} .
RUN pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary=:all: -r ${LOCK}

FROM python:3.13.16-slim-trixie
# By number, so that Kubernetes can tell that it is not root.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin app
COPY --from=build /venv /venv
WORKDIR /app
# .dockerignore lists what this copies.
COPY . .
RUN python -m compileall -q .
USER 10001

# Whoever forgets to set ENVIRONMENT gets the strict one. WEB_CONCURRENCY is the number of processes that serve: each has
# pools of its own, so that together they may hold (POSTGRES_POOL_SIZE + 4) x WEB_CONCURRENCY connections to PostgreSQL.
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=production \
    HOST=0.0.0.0 \
    PORT=8000 \
    WEB_CONCURRENCY=4

# `make image` gives them. Last, because they change with each commit.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title=tristore \
    org.opencontainers.image.description="A FastAPI service on PostgreSQL, Redis and MongoDB" \
    org.opencontainers.image.licenses=MIT \
    org.opencontainers.image.base.name=python:3.13.16-slim-trixie \
    org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.revision=$REVISION

EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-IS", "tristore/ops/alive.py"]
STOPSIGNAL SIGTERM
# Exec form: it is process 1 and gets SIGTERM.
CMD ["python", "manage.py", "run"]
