"""What runs are worth among all that were tried."""
