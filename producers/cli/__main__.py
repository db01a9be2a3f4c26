"""`python -m producers.cli`: the same as `promptmill`."""

from producers.cli.app import main

main()
