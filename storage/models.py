"""The tables that Peewee reads and writes row by row; migrations/*.sql make them, and a test holds the two together."""

from typing import Final

from peewee import SQL, BigIntegerField, BooleanField, IntegerField, Model, TextField, UUIDField
from playhouse.postgres_ext import BinaryJSONField, DateTimeTZField

from tocsin.storage.database import database

NEXT_VERSION: Final = SQL("nextval('user_versions')")
"""A version greater than any that a user or their preferences ever had."""


class Row(Model):
    """A row of our database."""

    class Meta:
        database = database


class Event(Row):
    """What a caller posted. Before its `accepted` fact is stored, only what other facts told is there."""

    id = UUIDField(primary_key=True)
    type = TextField(null=True)
    source = TextField(null=True)
    title = TextField(null=True)
    message = TextField(null=True)
    metadata = BinaryJSONField(null=True)
    channels = BinaryJSONField(null=True)
    asked_strategy = TextField(null=True)
    strategy = TextField(null=True)
    priority = TextField(null=True)
    policy = TextField(null=True)
    steps = BinaryJSONField(null=True)
    mandatory = BooleanField(null=True)
    sender = TextField(null=True)
    cid = TextField(null=True)
    recipient_count = IntegerField(null=True)
    unknown_ids = BinaryJSONField(null=True)
    recipients = BinaryJSONField(null=True)
    status = TextField()
    expected = BigIntegerField(null=True)
    error = TextField(null=True)
    accepted_at = DateTimeTZField(null=True)
    started_at = DateTimeTZField(null=True)
    completed_at = DateTimeTZField(null=True)
    cancelled_at = DateTimeTZField(null=True)
    cancel_reason = TextField(null=True)
    cancelled_by = TextField(null=True)
    generation = IntegerField()
    audience = BinaryJSONField(null=True)
    matched = BigIntegerField(null=True)
    horizon = TextField(null=True)
    event_key = TextField(null=True)
    signature = TextField(null=True)

    class Meta:
        table_name = "events"


class Notification(Row):
    """An event for one user; `event_id` is null until it is known."""

    id = UUIDField(primary_key=True)
    event_id = UUIDField(null=True)
    user_id = TextField()
    cid = TextField(null=True)
    routed_at = DateTimeTZField(null=True)
    listed_at = DateTimeTZField(null=True)
    read_at = DateTimeTZField(null=True)

    class Meta:
        table_name = "notifications"


class Delivery(Row):
    """One step of a notification's plan; the columns from `status` on are made of `history`."""

    id = UUIDField(primary_key=True)
    notification_id = UUIDField()
    event_id = UUIDField(null=True)
    user_id = TextField(null=True)
    step = IntegerField()
    channel = TextField()
    status = TextField()
    reason = TextField(null=True)
    attempt_count = IntegerField()
    max_attempts = IntegerField(null=True)
    address = TextField(null=True)
    scheduled_for = DateTimeTZField(null=True)
    queued_at = DateTimeTZField(null=True)
    last_attempted_at = DateTimeTZField(null=True)
    next_attempt_at = DateTimeTZField(null=True)
    sent_at = DateTimeTZField(null=True)
    delivered_at = DateTimeTZField(null=True)
    provider = TextField(null=True)
    provider_id = TextField(null=True)
    provider_status = TextField(null=True)
    error_code = TextField(null=True)
    error_message = TextField(null=True)
    price = TextField(null=True)
    segments = IntegerField(null=True)
    history = BinaryJSONField()

    class Meta:
        table_name = "deliveries"


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
    attributes = BinaryJSONField()

    class Meta:
        table_name = "users"


class Device(Row):
    """One installation that takes push messages."""

    id = UUIDField(primary_key=True)
    user_id = TextField()
    kind = TextField()
    token = TextField()
    created_at = DateTimeTZField()

    class Meta:
        table_name = "devices"


class Preferences(Row):
    """What a person switched off."""

    user_id = TextField(primary_key=True)
    opt_outs = BinaryJSONField()
    version = BigIntegerField()
    updated_at = DateTimeTZField()

    class Meta:
        table_name = "preferences"


class ApiKey(Row):
    """A key that a server presents; only the hash of its secret is kept."""

    id = UUIDField(primary_key=True)
    name = TextField()
    role = TextField()
    hash = TextField()
    created_at = DateTimeTZField()
    created_by = TextField(null=True)
    revoked_at = DateTimeTZField(null=True)

    class Meta:
        table_name = "api_keys"


class AuditEntry(Row):
    """Something that an admin did."""

    id = BigIntegerField(primary_key=True)
    at = DateTimeTZField()
    action = TextField()
    actor = TextField()
    cid = TextField(null=True)
    detail = BinaryJSONField()

    class Meta:
        table_name = "audit_log"
