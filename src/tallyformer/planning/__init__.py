"""What a run will need: steps, memory, time."""
