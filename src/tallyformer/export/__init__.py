"""Models that leave the pipeline, and checkpoints that enter it."""
