"""A language model as a strategist: what it answers is data, checked and never executed.

`conversation` asks, checks and asks again, and can replay what was recorded; `live_model` is the
only module that speaks to a provider; `answers` makes a plan of an answer or refuses it.
"""
