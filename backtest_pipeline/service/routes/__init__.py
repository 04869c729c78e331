"""The routes, one module for each of what they are about."""

from backtest_pipeline.service.routes import blocks, computing, health, jobs, portfolios
from backtest_pipeline.service.routes import runs as results

ROUTERS = (
    health.router,
    computing.router,
    jobs.router,
    results.router,
    blocks.router,
    portfolios.router,
)
