"""Capital spread over runs."""
