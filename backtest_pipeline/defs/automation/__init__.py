"""What runs by itself: schedules of backfills, notices of failed runs, and the table of it all."""
