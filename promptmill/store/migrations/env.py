"""What alembic runs: the migrations, inside the transaction that `store.schema` opened."""

from alembic import context

from promptmill.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
