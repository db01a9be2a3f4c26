"""The database, which is the truth: the only package that imports SQLAlchemy."""
