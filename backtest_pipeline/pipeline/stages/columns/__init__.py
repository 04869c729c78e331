"""The stage that stores columns of the user's own, and reading what it has stored."""
