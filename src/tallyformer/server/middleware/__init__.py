"""What every request passes: plain ASGI, so that streams and disconnects arrive as they are."""
