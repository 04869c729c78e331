"""The routes, one module for each of what they are about."""

from backtest_pipeline.service.routes import computing, health, jobs, results

ROUTERS = (health.router, computing.router, jobs.router, results.router)
