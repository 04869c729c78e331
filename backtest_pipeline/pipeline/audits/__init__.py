"""What the pipeline checks about itself."""
