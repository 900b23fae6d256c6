"""The pipeline: each file opens artifacts, calls pure code and writes one artifact."""
