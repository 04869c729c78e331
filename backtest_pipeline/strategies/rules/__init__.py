"""Strategies written as rules: a TOML file of conditions in a small closed language, no code.

`rule_file` reads a file into a `Strategy`, `parser` a rule's text into steps of a `Program`, by
the `operators` that there are, and `evaluation` computes the steps on a panel. Rules are data: no
text is ever run as Python.
"""

from backtest_pipeline.strategies.rules.rule_file import from_toml, rule_hash

__all__ = ["from_toml", "rule_hash"]
