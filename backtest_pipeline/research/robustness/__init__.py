"""How much of one run is luck: resampled, reordered, filled and entered otherwise."""
