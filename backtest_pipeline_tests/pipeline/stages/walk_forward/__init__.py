"""Tests of the columns of a user's own in stages."""
