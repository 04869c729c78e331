"""Measurements: peers, the whole universe, and the same through Dagster.

Run with `python -m bench [case ...] [--quick]`. Every figure of a table comes from one process
and one run, with the candidates taking turns, so that ratios hold on a busy machine too. Nothing
here is imported by the product.
"""
