"""What can be known before the first training step."""
