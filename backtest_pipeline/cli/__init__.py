"""The command line only: arguments in, tables and exit codes out.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""
