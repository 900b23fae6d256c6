"""What is on disk: atomic writes, manifests, run folders."""
