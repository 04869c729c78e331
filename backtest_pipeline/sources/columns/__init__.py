"""Columns of a user's own that come as files: a model's scores, funding, sentiment."""
