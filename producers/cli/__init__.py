"""The `promptmill` command: words around what `producers` does, no rules."""
