"""Every command but those that run a process; app.py adds them to its own."""

from typing import Final

import click

from tocsin.cli.bad_facts import bad_facts
from tocsin.cli.cancel import cancel
from tocsin.cli.dead_letters import dead_letters
from tocsin.cli.demo import demo
from tocsin.cli.doctor import doctor
from tocsin.cli.keys import keys
from tocsin.cli.migrate import migrate
from tocsin.cli.partitions import partitions
from tocsin.cli.receipts import look_ups, receipts
from tocsin.cli.reconcile import reconcile
from tocsin.cli.send import send
from tocsin.cli.settle import settle
from tocsin.cli.status import status
from tocsin.cli.topics import topics
from tocsin.cli.users import users

ALL: Final[tuple[click.Command, ...]] = (
    migrate,
    partitions,
    doctor,
    send,
    status,
    cancel,
    settle,
    receipts,
    look_ups,
    dead_letters,
    bad_facts,
    reconcile,
    keys,
    users,
    topics,
    demo,
)
