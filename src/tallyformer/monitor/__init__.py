"""Looking at runs while they train: reading their folders as they grow, never writing to them.

Whatever a folder holds, a look says what it is; nothing here fails for what a run has written.
"""
