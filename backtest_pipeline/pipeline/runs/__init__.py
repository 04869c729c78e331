"""Stored runs: what they are, published, found, compared, exported and removed."""
