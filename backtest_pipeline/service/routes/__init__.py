"""The routes, one module for each of what they are about."""

from backtest_pipeline.service.routes import computing, health, results

ROUTERS = (health.router, computing.router, results.router)
