"""Columns that strategies read beside the features: of a user's own, and ranks."""
