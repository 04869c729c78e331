"""The stages of a refresh: each computes and stores many partitions at once."""
