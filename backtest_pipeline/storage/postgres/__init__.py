"""The server, connections, transactions, schema and bulk writes."""
