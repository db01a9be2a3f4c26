"""The Claude API over HTTP: the only package that imports the HTTP client."""
