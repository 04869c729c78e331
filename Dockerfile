FROM python:3.12-slim
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY sql sql
COPY backtest_pipeline backtest_pipeline
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
RUN useradd --create-home pipeline && mkdir /data && chown pipeline /data
USER pipeline
EXPOSE 3000
CMD ["backtest-pipeline", "up", "--host", "0.0.0.0"]
