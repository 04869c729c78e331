"""The tables of plan books: books, their plans, requests to plan again, and model usage."""
