"""Settings of every test."""

from hypothesis import settings

# Time limits of single examples say nothing on a machine that others use too.
settings.register_profile("tallyformer", deadline=None)
settings.load_profile("tallyformer")
