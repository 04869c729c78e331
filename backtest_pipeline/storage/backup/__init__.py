"""Backup of a store into one file, and its restoration into another."""
