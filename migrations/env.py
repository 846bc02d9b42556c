"""Run the revisions: on which database, in which schema, and under which lock.

The database is that of `-x url=…` or WORKFLOW_STORE_URL, the PostgreSQL schema that of
`-x schema=…` or WORKFLOW_STORE_SCHEMA.
"""

import asyncio
import logging.config

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text
from sqlalchemy.schema import CreateSchema

from workflow_store.errors import WorkflowStoreError
from workflow_store.sql import migrate
from workflow_store.sql.models import VERSION_TABLE
from workflow_store.sql.urls import DatabaseUrl, default_schema, default_url

config = context.config
arguments = context.get_x_argument(as_dictionary=True)
try:
    url = DatabaseUrl.parse(config.attributes.get("url") or arguments.get("url") or default_url())
except ValueError as error:
    raise CommandError(str(error)) from None
schema = config.attributes.get("schema") or arguments.get("schema") or default_schema()
dialect = url.dialect
if not dialect.supports_schema:
    schema = None
metadata = migrate.metadata(schema)

if config.config_file_name is not None:
    logging.config.fileConfig(config.config_file_name, disable_existing_loggers=False)


def include_name(name, type_, parent_names):
    """Compare only our own tables, since the database may be a host application's."""
    if type_ == "schema":
        return name == schema
    return type_ != "table" or parent_names["schema_qualified_table_name"] in metadata.tables


def configure(**options):
    context.configure(
        **options,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        version_table_schema=schema,
        include_schemas=schema is not None,
        include_name=include_name,
        transactional_ddl=True,  # on SQLite too, contrary to Alembic's default
        transaction_per_migration=True,  # a revision may leave it, to build indexes concurrently
    )


def run_online(connection: Connection) -> None:
    if schema is not None and is_migration() and not inspect(connection).has_schema(schema):
        destination = context.get_revision_argument()
        if destination is None:
            return  # base: there is nothing to downgrade
        if not str(destination).startswith("+"):
            context.script.get_revisions(destination)  # fail before the schema is created
        connection.execute(CreateSchema(schema))
    if not dialect.migrates_in_one_transaction:
        connection.commit()
    configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()


def is_migration() -> bool:
    """Return whether the command is an upgrade or a downgrade; others, as `current`, only read."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True


def run_offline() -> None:
    # "named", because the default of PostgreSQL's dialect doubles every % in a name.
    configure(dialect_name=dialect.name, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        if schema is not None:
            context.execute(create_schema_if_missing())
        context.run_migrations()


def create_schema_if_missing():
    # CREATE SCHEMA IF NOT EXISTS needs the right to create even if the schema exists.
    create = CreateSchema(schema).compile(dialect=context.get_context().dialect)
    block = (
        f"BEGIN IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = {quoted(schema)}) "
        f"THEN {create}; END IF; END"
    )
    return text(f"DO {quoted(block)}".replace(":", r"\:"))


def quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


async def run_on_own_connection() -> None:
    logging.getLogger("alembic.env").info("The database is %s", url.name)
    try:
        async with migrate.migrating(url.url, schema) as run:
            await run(run_online)
    except WorkflowStoreError as error:
        if isinstance(error.__cause__, CommandError):  # Alembic's message for its user
            raise error.__cause__ from None
        raise CommandError(str(error)) from error


if context.is_offline_mode():
    run_offline()
elif "connection" in config.attributes:
    run_online(config.attributes["connection"])
else:
    asyncio.run(run_on_own_connection())
