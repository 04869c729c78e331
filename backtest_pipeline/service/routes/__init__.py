"""The routes, one module for each of what they are about: its `router` is served by being there."""

from importlib import import_module
from pkgutil import iter_modules

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """The router of every module of this folder that has one."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    return [module.router for module in modules if hasattr(module, "router")]
