"""Deploying with containers: pinning images to digests, and checking values against charts."""
