"""Results to pictures and text. Reads no store, computes no result."""
