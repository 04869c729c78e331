"""The HTTP service: routes, authentication, limits, problems. Each route calls a use case.

Nothing is computed here, and between requests only connections and warm workers are kept: every
response comes from the store.
"""
