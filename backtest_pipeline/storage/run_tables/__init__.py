"""The tables of runs, and of what follows from them."""
