"""The user's own feature table: its rows as snapshots, and what of it has changed."""
