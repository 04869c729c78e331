"""What the scores of a cross-section foretell: information coefficients, returns by quantile."""
