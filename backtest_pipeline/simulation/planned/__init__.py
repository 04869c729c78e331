"""Simulation of plans: triggers decide, limits block, cash is shared; see docs/plans.md."""
