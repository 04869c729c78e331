"""The user's own table of features: what it is called, what it holds, and its rows.

Everything here reads. What is made of the rows belongs to `pipeline`; what the store remembers of
them lies in the store's own tables.
"""
