"""Splits of a history, parameters chosen on one part and judged on another."""
