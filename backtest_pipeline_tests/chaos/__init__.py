"""What kills, restarts and broken connections leave behind; `make chaos` runs the long versions."""
