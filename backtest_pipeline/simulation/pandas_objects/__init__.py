"""Simulation on pandas objects, for notebooks: one asset, or many in one account."""
