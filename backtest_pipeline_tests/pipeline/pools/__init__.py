"""The pools: threads, processes of this host, and workers of a cluster."""
