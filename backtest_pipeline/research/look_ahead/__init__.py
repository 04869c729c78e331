"""Look-ahead: whether values at the close of a bar depend on later bars."""
