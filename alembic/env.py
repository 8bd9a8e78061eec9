"""Runs the migrations, on the connection passed by `lookalike migrate` or on a new one."""

import re

from alembic import context
from sqlalchemy import Connection, text

from app.config import Settings
from app.db.engine import check_server, make_engine
from app.db.schema import metadata

PARTITIONS = r"embedding_m|search_(request|event)_\d{8}$"


def compared(object_, name, type_, reflected, compare_to) -> bool:
    """Exclude partitions from autogenerate, because SQLAlchemy cannot describe them; tests check
    them."""
    del object_, compare_to
    return not (type_ == "table" and reflected and re.match(PARTITIONS, name))


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=compared,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql", target_metadata=metadata, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()
elif (handed_over := context.config.attributes.get("connection")) is not None:
    migrate(handed_over)
else:
    engine = make_engine(Settings())
    with engine.connect() as own:
        check_server(own)
        own.execute(text("SET statement_timeout = 0"))
        own.commit()
        migrate(own)
    engine.dispose()
