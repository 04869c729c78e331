"""Whether what is known at the close of a bar uses later bars."""
