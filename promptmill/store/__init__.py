"""The database, which is the truth: the only package that imports SQLAlchemy.

Functions take a `Connection` first and an aware `now` where they stamp; `Database.begin()` and
`Database.read()` give the connection. Nothing here waits, reads a clock or commits by itself.
"""

from sqlalchemy import Connection

__all__ = ["Connection"]
