"""The tables that Peewee reads and writes row by row; migrations/*.sql make them, and a test holds the two together."""

from typing import Final

from peewee import SQL, BigIntegerField, BooleanField, Model, TextField, UUIDField
from playhouse.postgres_ext import BinaryJSONField, DateTimeTZField

from tocsin.storage.database import database

NEXT_VERSION: Final = SQL("nextval('user_versions')")
"""A version greater than any that a user or their preferences ever had."""


class Row(Model):
    """A row of our database."""

    class Meta:
        database = database


class User(Row):
    """Where a person can be reached."""

    id = TextField(primary_key=True)
    email = TextField(null=True)
    phone = TextField(null=True)
    name = TextField(null=True)
    locale = TextField(null=True)
    timezone = TextField(null=True)
    active = BooleanField()
    version = BigIntegerField()
    created_at = DateTimeTZField()
    updated_at = DateTimeTZField()

    class Meta:
        table_name = "users"


class Device(Row):
    """One installation that takes push messages."""

    id = UUIDField(primary_key=True)
    user_id = TextField()
    kind = TextField()
    token = TextField(unique=True)
    created_at = DateTimeTZField()

    class Meta:
        table_name = "devices"


class Preferences(Row):
    """What a person switched off."""

    user_id = TextField(primary_key=True)
    opt_outs = BinaryJSONField(index=False)
    version = BigIntegerField()
    updated_at = DateTimeTZField()

    class Meta:
        table_name = "preferences"


class ApiKey(Row):
    """A key that a server presents; only the hash of its secret is kept."""

    id = UUIDField(primary_key=True)
    name = TextField()
    role = TextField()
    hash = TextField(unique=True)
    created_at = DateTimeTZField()
    created_by = TextField(null=True)
    revoked_at = DateTimeTZField(null=True)

    class Meta:
        table_name = "api_keys"
