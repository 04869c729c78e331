"""Strategies that users bring: rules in TOML, Python files, and installed packages.

A file is read once, from one open descriptor; what is hashed, archived and executed are those
bytes. Reading a folder, trying a file in a child process and loading it are a module each.
"""
