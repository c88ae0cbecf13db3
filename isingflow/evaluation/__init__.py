"""What a run is worth, as JSON and as a table."""
