"""One asset or many as pandas objects, as a notebook has them."""
