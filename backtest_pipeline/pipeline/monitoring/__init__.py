"""What is counted and measured of the work."""
