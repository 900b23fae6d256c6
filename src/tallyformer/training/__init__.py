"""One training loop, its losses, schedules, checkpoints and metrics."""
