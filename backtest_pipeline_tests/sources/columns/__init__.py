"""Tests of files of columns."""
