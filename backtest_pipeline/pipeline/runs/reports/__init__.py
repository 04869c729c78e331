"""Reports of stored runs: what they are drawn from, as pages and as files."""
