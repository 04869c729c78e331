"""Files: on a local disk or in a bucket, whole or not at all."""
