"""Postgres and artifacts: the embedded server, the database, migrations, bulk writes and reads.

The only layer with SQL and the only one that knows a driver. What a value means is decided in
the layers below, what is done with it in `pipeline`; here it is kept and given back unchanged.
Every write of a batch is one transaction, and every identifier and value reaches SQL quoted or
bound.
"""

PRIVATE = 0o077
"""The umask of our own processes: results and strategies are nobody else's to read."""
