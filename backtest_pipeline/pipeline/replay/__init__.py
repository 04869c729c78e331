"""Stored runs computed again and compared, and why two runs differ."""
