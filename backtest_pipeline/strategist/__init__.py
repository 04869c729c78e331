"""Strategists, which turn what is known at an instant into a plan, and the judge of running plans.

Pure functions of what they are given: no database, no clock, no store. `known` cuts what was known
at an instant, `regime_rules` plans by fixed rules, `llm` asks a language model, `judge` scores the
plan in force, `replans` says when a new one is due, and `history` makes the plans of a backtest.
"""
