ARG PYTHON_IMAGE=python:3.12.13-slim-trixie

# The wheel, built where its tools may stay behind.
FROM ${PYTHON_IMAGE} AS build
WORKDIR /source
COPY requirements-build.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE workspace.yaml ./
COPY sql sql
COPY backtest_pipeline backtest_pipeline
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${PYTHON_IMAGE}
WORKDIR /app
COPY requirements.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
RUN --mount=from=build,source=/wheels,target=/wheels pip install --no-cache-dir --no-deps /wheels/*.whl
RUN useradd --create-home --uid 10001 pipeline && mkdir /data && chown pipeline /data
USER pipeline
EXPOSE 3000 8000
# Of the usual command; another one, as the service's in docker-compose.yml, brings its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/server_info', timeout=4)"]
CMD ["backtest-pipeline", "up", "--host", "0.0.0.0"]
