"""Where work is done: in threads of this process, in processes of this host, or on a cluster."""
