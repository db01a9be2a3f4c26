"""How the schema came to be: one file a step, run by alembic through `store.schema`."""
