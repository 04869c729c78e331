ARG PYTHON_IMAGE=python:3.12.16-slim-trixie

# The wheel, built where its tools stay behind.
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
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-deps /wheels/*.whl
# Whoever runs the container may be any user of the host: each writes here, and reads its own files
# alone. Nothing else has to be writable but /tmp.
RUN useradd --no-create-home --home-dir /data --uid 10001 pipeline \
    && mkdir /data /artifacts /certificates \
    && chmod 1777 /data /artifacts /certificates
# A user that the image does not know has neither home nor name; what is compiled is kept.
ENV HOME=/data USER=pipeline NUMBA_CACHE_DIR=/data/cache/numba BACKTEST_HOME=/data
USER 10001:10001
EXPOSE 3000 4000 8000
# Of the usual command; another one brings its own, as in docker-compose.yml.
HEALTHCHECK --interval=60s --timeout=30s --start-period=180s --retries=3 \
    CMD ["backtest-pipeline", "health", "webserver"]
CMD ["backtest-pipeline", "up", "--host", "0.0.0.0", "--allow-remote"]
