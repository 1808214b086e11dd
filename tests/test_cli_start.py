"""Where a server listens, and what it says when it cannot."""

import socket
from pathlib import Path

import pytest

from tests.program import Program, environment

pytestmark = [pytest.mark.servers, pytest.mark.processes]


def refusal(folder: Path, redis_url: str, postgres_url: str, **more: str) -> str:
    """What `tocsin http` says when it does not start."""
    program = Program(folder, "http", environ=environment(None, redis_url, postgres_url, **more)).start()
    try:
        assert program.wait(30) == 2
    finally:
        program.stop()
    return program.log.read_text()


def test_a_port_in_use_is_told_by_its_setting(tmp_path: Path, redis_url: str, postgres_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        told = refusal(tmp_path, redis_url, postgres_url, TOCSIN_HTTP__PORT=port)
    assert told == (
        f"tocsin: http.port: {port} is in use by another program; stop that one, or give another (TOCSIN_HTTP__PORT)\n"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "2001:db8::1"])
def test_an_address_of_another_machine_is_told_by_its_setting(
    tmp_path: Path, redis_url: str, postgres_url: str, host: str
) -> None:
    told = refusal(tmp_path, redis_url, postgres_url, TOCSIN_HTTP__HOST=host)
    assert told.startswith(f"tocsin: http.host: {host} is no address of this machine (")
    assert told.count("\n") == 1
