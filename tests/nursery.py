"""Processes of the program without the second and a half that each spends reading it: one has read it, and each is a
fork of that one. They differ in nothing else from `python -m tocsin.app`: environment, folder, output and signals are
their own. `python -m tests.nursery` is the one; the rest of this module speaks to it.
"""

import atexit
import gc
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

_ORDERS: Final = 0


class Child:
    """A process that was forked; what Popen offers of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def ended(self, status: int) -> None:
        self.returncode = status
        self._ended.set()


class Nursery:
    """The process that forks, and what became of its children."""

    def __init__(self) -> None:
        answers, theirs = os.pipe()
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", str(theirs)],
            stdin=subprocess.PIPE,
            pass_fds=[theirs],
            cwd=Path(__file__).parents[1],
            text=True,
        )
        os.close(theirs)
        self._answers = os.fdopen(answers)
        self._children: dict[int, Child] = {}
        self._born: list[Child] = []
        self._changed = threading.Condition()
        self._ordering = threading.Lock()
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()
        atexit.register(self.close)

    def fork(
        self, arguments: list[str], environ: Mapping[str, str], log: Path, dies: tuple[str, int] | None = None
    ) -> Child:
        """A program with `arguments`, all of its environment, and its output in `log`, beside which it works. `dies`:
        the point at which it kills itself, and the how many-th time (crashing.py)."""
        order = {"arguments": arguments, "environ": dict(environ), "log": str(log), "dies": dies}
        with self._ordering, self._changed:
            assert self._parent.stdin is not None
            self._parent.stdin.write(json.dumps(order) + "\n")
            self._parent.stdin.flush()
            assert self._changed.wait_for(lambda: self._born, timeout=60), "nobody was born"
            return self._born.pop()

    def close(self) -> None:
        """Ends it, and with it every child that is left."""
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(5)
        self._listening.join(5)
        self._answers.close()

    def _listen(self) -> None:
        for line in self._answers:
            told = json.loads(line)
            with self._changed:
                if "born" in told:
                    child = self._children[told["born"]] = Child(told["born"])
                    self._born.append(child)
                else:
                    self._children.pop(told["ended"]).ended(told["status"])
                self._changed.notify_all()


_nursery: Nursery | None = None


def fork(arguments: list[str], environ: Mapping[str, str], log: Path, dies: tuple[str, int] | None = None) -> Child:
    """See Nursery.fork; one nursery serves the whole run."""
    global _nursery  # noqa: PLW0603  # made when it is first needed
    if _nursery is None:
        _nursery = Nursery()
    return _nursery.fork(arguments, environ, log, dies)


def _serve(answers: int) -> None:
    _read_the_program()
    parent = _Parent(answers)
    unread = b""
    for given in parent.heard():
        *orders, unread = (unread + given).split(b"\n")
        for order in orders:
            parent.fork(**json.loads(order))


def _read_the_program() -> None:
    """Also what a process of it reads later than at its start: the providers' parts and what they stand on."""
    from tests import crashing
    from tocsin import app
    from tocsin.channels import smtp
    from tocsin.channels.senders import fcm, twilio

    assert all((crashing, app, smtp, fcm, twilio))
    assert threading.active_count() == 1, "a fork would have one thread of several"
    gc.collect()
    gc.freeze()


class _Parent:
    """Forks, and tells who was born and who ended."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._alive: set[int] = set()
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker)

    def heard(self) -> Iterator[bytes]:
        """What comes in, until nobody is there any more; then nobody is left here either."""
        with selectors.DefaultSelector() as selector:
            selector.register(_ORDERS, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for found, _ in selector.select():
                    given = os.read(found.fd, 1 << 20)
                    if found.fd == self._woken:
                        self._reap()
                    elif given:
                        yield given
                    else:
                        self._end_all()
                        return

    def fork(self, **order: Any) -> None:
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.closerange(self._answers, max(self._answers, self._woken, self._waker) + 1)
            _live(**order)
            os._exit(0)
        self._alive.add(pid)
        self._tell(born=pid)

    def _reap(self) -> None:
        for pid in list(self._alive):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._alive.discard(pid)
                self._tell(ended=pid, status=os.waitstatus_to_exitcode(status))

    def _end_all(self) -> None:
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)

    def _tell(self, **told: int) -> None:
        os.write(self._answers, (json.dumps(told) + "\n").encode())


def _live(arguments: list[str], environ: dict[str, str], log: str, dies: list[Any] | None) -> None:
    """What a fork does."""
    from tests.crashing import arm
    from tocsin.app import main

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for mine, theirs in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(mine, theirs)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(Path(log).parent)
    if dies:
        arm(*dies)
    sys.argv = ["tocsin", *arguments]
    main()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
