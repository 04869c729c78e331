"""HTTP only: routes, authentication, limits, problems. What a route does is a use case below.

Nothing here computes, and nothing here is remembered between requests but what costs time to
open (connections, warm workers): every answer comes from the store.
"""
