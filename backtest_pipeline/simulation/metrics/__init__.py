"""What a run is measured by, and against."""
