"""What alembic runs: the migrations, on the connection of `store.schema`, in its transaction where it has one."""

from alembic import context

from promptmill.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
