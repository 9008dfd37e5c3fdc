FROM python:3.13-slim AS build
RUN python -m venv --without-pip /venv
COPY requirements/base.lock .
RUN pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary=:all: -r base.lock

FROM python:3.13-slim
# By number, so that Kubernetes can tell that it is not root.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin app
COPY --from=build /venv /venv
WORKDIR /app
# .dockerignore lists what this copies.
COPY . .
RUN python -m compileall -q .
USER 10001

# Whoever forgets to set ENVIRONMENT gets the strict one. WEB_CONCURRENCY is the number of uvicorn's workers: each has
# pools of its own, so that together they may hold (POSTGRES_POOL_SIZE + 4) x workers connections to PostgreSQL.
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ENVIRONMENT=production \
    WEB_CONCURRENCY=4

EXPOSE 8000
# Not urllib.request: it would ask a proxy that is set in the environment.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", "import http.client, sys; \
connection = http.client.HTTPConnection('127.0.0.1', 8000, timeout=2); \
connection.request('GET', '/health/live'); \
sys.exit(connection.getresponse().status != 200)"]
# Exec form: uvicorn is process 1 and gets SIGTERM. Streams of events end only when they are cut off. An idle connection is
# kept longer than load balancers keep theirs, or a request meets one that is just being closed.
CMD ["uvicorn", "main:app", "--host", "0.0.0.0", "--port", "8000", "--no-access-log", \
     "--http", "tristore.http.protocol:HttpProtocol", \
     "--timeout-graceful-shutdown", "5", "--timeout-keep-alive", "75", "--no-proxy-headers", "--no-server-header"]
