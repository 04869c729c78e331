"""Runs that rank a universe: what they are made from, their figures, and publishing them."""
