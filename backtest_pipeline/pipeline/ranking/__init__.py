"""What runs are worth after all that was tried."""
