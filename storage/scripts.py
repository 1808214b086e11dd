"""The Lua scripts: read once, each with what all of them share before it, and called by name.

At most 100 items a call: 500 would hold Redis for 7 to 12 ms, 100 hold it for 2 to 3 at nine tenths of the speed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis import exceptions

from tocsin.domain.errors import RedisLost
from tocsin.storage.keys import Keys
from tocsin.storage.life import Life
from tocsin.storage.redis import told
from tocsin.storage.together import Argument, answers_of

MOST_ITEMS = 100

# Each may use those before it.
_SHARED = ("lib", "merge", "steps", "event", "breaker", "rate")


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a script: its name and its arguments without the namespace."""

    name: str
    arguments: Sequence[object]


class Scripts:
    """Runs scripts on one client. A script's first arguments are always the namespace, and the life of Redis that its
    caller works in; without one no script asks."""

    def __init__(self, client: Any, keys: Keys, life: Life | None = None) -> None:
        self._client = client
        self._keys = keys
        self.life = life or Life()

    async def run(self, name: str, *arguments: object) -> Any:
        """The script's answer. Raises RedisAway (RedisLost) or Overloaded."""
        return (await self.run_in_turn([Step(name, arguments)]))[0]

    async def run_telling(self, name: str, *arguments: object) -> list[str]:
        """The answer of a script that tells what happened. How far the journal is stands behind it, and is kept: should
        Redis come back older than this, it is noticed before anything starts. Raises RedisAway or Overloaded."""
        epoch = self.life.epoch
        answer: list[str]
        *answer, reached = await self.run(name, *arguments)
        if self.life.epoch == epoch:
            self.life.follow(int(reached))
        return answer

    async def run_all(self, steps: Sequence[Step]) -> list[Any]:
        """The answers of scripts that are sent together, each done on its own, in their order; where one was refused
        its error stands for its answer. Raises RedisAway, when any number of them may have been done."""
        answers = await self._send(steps)
        unknown = (place for place, answer in enumerate(answers) if isinstance(answer, exceptions.NoScriptError))
        first = next(unknown, None)
        if first is not None:
            # A Redis that has just started knows none. What was done behind it is done again, as it may be.
            with told():
                for name in {step.name for step in steps}:
                    await self._client.script_load(text_of(name))
            answers = [*answers[:first], *await self._send(steps[first:])]
        return answers

    async def run_beside(self, name: str, arguments: Sequence[object], others: Sequence[Step]) -> Any:
        """The answer of a script with which others are sent, to be run after it; what those answer is not told. Raises
        as `run` does."""
        if not others:
            return await self.run(name, *arguments)
        return (await self.run_in_turn([Step(name, arguments)], others))[0]

    async def run_in_turn(self, steps: Sequence[Step], others: Sequence[Step] = ()) -> list[Any]:
        """The answers of scripts that are sent together, with others behind them. Raises as `run` does, where one of
        `steps` was refused."""
        answers = (await self.run_all([*steps, *others]))[: len(steps)]
        try:
            with told():
                for answer in answers:
                    if isinstance(answer, Exception):
                        raise answer
        except RedisLost:
            self.life.doubt()
            raise
        return answers

    async def _send(self, steps: Sequence[Step]) -> list[Any]:
        caller = self._caller()
        commands: list[Sequence[Argument]] = [
            ("EVALSHA", _sha_of(step.name), 1, self._keys.facts, *caller, *map(str, step.arguments)) for step in steps
        ]
        with told():
            return await answers_of(self._client, commands)

    def _caller(self) -> tuple[str, str, str]:
        return self._keys.namespace, self.life.epoch, str(self.life.reached)


def text_of(name: str) -> str:
    """The whole text of a script, as Redis gets it: behind what all share, of the other parts those that it uses, for
    Redis runs through all of it at every call."""
    texts = [_read(name)]
    for part in reversed(_SHARED):
        text = _read(part)
        if part == _SHARED[0] or _made_by(text) & _words_of("\n".join(texts)):
            texts.insert(0, text)
    return "\n".join(texts)


@cache
def _sha_of(name: str) -> str:
    """What Redis calls a script that it has loaded."""
    return sha1(text_of(name).encode(), usedforsecurity=False).hexdigest()


def _read(part: str) -> str:
    return (files("tocsin.storage") / "lua" / f"{part}.lua").read_text()


def _words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", re.sub(r"--.*", "", text)))


def _made_by(text: str) -> set[str]:
    """The names that a part gives those after it."""
    made = re.findall(r"^local (?:function )?([\w, ]+)", text, re.MULTILINE)
    return {name for names in made for name in names.replace(",", " ").split()}
