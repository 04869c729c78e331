"""Strategies that rank a universe: what one is, and how its file is read."""
