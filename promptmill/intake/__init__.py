"""Intake: what a person gives (a file, rows, a frame) becomes jobs in the database, or is refused with reasons."""
