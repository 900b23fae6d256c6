"""What a run's folder holds, as objects: its data, models and teacher."""
