"""Characters that the symbol of an asset may contain."""

# "|" separates the dimensions of a Dagster key; "," and "[...]" are its syntax for lists of keys.
SYMBOL_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._\-]{0,31}"
