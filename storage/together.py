"""Commands that are sent together, as redis-py's pipelines do it, in two fifths of their processor time.

What is left out is what a pipeline keeps of each command, and figures that nobody collects. Connections, time-outs, new
tries and errors are redis-py's own.
"""

from collections.abc import Sequence
from typing import Any

import hiredis
from redis import exceptions

Argument = str | bytes | int


async def answers_of(client: Any, commands: Sequence[Sequence[Argument]]) -> list[Any]:
    """The answers in order; where a command was refused its error stands for its answer. Raises what redis-py raises
    for a connection, when any number of them may have been done."""
    packed = [_packed(command) for command in commands]
    connection = await client.connection_pool.get_connection()

    async def exchange() -> list[Any]:
        await connection.send_packed_command(packed)
        return [await _answer(connection) for _ in commands]

    async def fail(error: Exception, count: int) -> None:
        await connection.disconnect(error=error, failure_count=count)

    try:
        answers: list[Any] = await connection.retry.call_with_retry(exchange, fail, with_failure_count=True)
    finally:
        await client.connection_pool.release(connection)
    return answers


def _packed(command: Sequence[Argument]) -> bytes:
    # Its type says a tuple of one, and any length is meant.
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
    return packed


async def _answer(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except exceptions.ResponseError as refused:
        return refused
