"""Turning what a user gives into admitted jobs."""
