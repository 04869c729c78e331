"""Dagster only, and the only layer that imports it.

Assets name a use case of `pipeline` and nothing else; IO managers hand batches to its stages;
what to compute and how it is stored is decided there.
"""
