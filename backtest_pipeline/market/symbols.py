"""How the symbol of an asset may be spelled."""

# Dagster joins the dimensions of a key with "|" and lists keys with "," and "[...]".
SYMBOL_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._\-]{0,31}"
