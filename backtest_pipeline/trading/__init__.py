"""What strategies, plans and the engine share: conditions, stops, costs, sizing. No logic."""
