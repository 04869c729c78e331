"""Dagster only, and the only room that imports it.

Assets name a use case of `pipeline` and nothing else; IO managers hand blocks to its stages;
what to compute and how it is stored is decided there.
"""
