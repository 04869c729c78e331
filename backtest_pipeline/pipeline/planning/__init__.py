"""Plan books: what their strategists decide, when they decide again, and runs under their plans."""
