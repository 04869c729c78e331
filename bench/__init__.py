"""Benchmarks: speed beside other engines, of the whole universe, of storage and of the service.

Run them with `python -m bench [case ...] [--quick]`. All figures of a table come from one process
and one run in which the candidates take turns, so ratios hold on a busy machine too. The product
imports nothing from here.
"""
