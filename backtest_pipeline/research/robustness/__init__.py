"""Robustness of one run: bootstrap, trade order, random fills and entries, other assumptions."""
