"""Promptmill: very large batches of prompts against Claude under one rate limit."""

__version__ = "0.1.0"
