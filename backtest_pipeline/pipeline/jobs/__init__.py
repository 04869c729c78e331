"""Specs that may take long, submitted now and executed by a worker of the orchestrator."""
