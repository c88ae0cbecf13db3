"""The training loop and what it asks."""
