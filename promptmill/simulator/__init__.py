"""The simulated Claude: an HTTP server that enforces limits as the real API does."""
