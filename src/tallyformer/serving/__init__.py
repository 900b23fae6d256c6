"""The server's application on a Ray cluster: many replicas, more of them under load."""
