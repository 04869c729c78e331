"""Software-defined assets: each names its use case, and says what it owns."""
