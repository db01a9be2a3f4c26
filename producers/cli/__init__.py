"""The `promptmill` command: words and their meaning, no rules. Each command asks `producers` and prints."""
