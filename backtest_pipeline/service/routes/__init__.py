"""The routes, one module per subject; the app serves the `router` of every module here."""

from importlib import import_module
from pkgutil import iter_modules

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """The router of every module of this folder that has one."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return [module.router for module in modules if hasattr(module, "router")]
