"""What a strategist writes and a simulation follows: plans, their triggers and their limits.

Pure types: they know the rule language and the strategies that triggers name, and nothing of who
writes a plan, of accounts, or of storage.
"""
