"""Carries out the steps of the Dockerfile without a Docker engine, in a place of its own, and starts what it makes.

    python tests/image/run_steps.py <project> [--env NAME=VALUE]... [--command "..."] [--beside "..."]

--env and --command are what one would give to `docker run`; --beside is run in the image once it is healthy. It is
started twice, so that the second start finds what the first left in the volume.

It must be root on Linux. What is as in an image: every RUN, COPY, ENV, WORKDIR, USER, HEALTHCHECK and CMD is carried
out as it stands, from the files that .dockerignore lets through, by the user it names, with only the variables it sets
(and those that tell pip and uv where packages are); CMD is process 1 of its own process space; nothing of the project's
own folder can be seen. What is not: FROM is not fetched, this machine's system with this Python takes its place, seen
through an overlay that is thrown away; VOLUME and EXPOSE are noted only; the network is this machine's.

Prints one line a step. Exits with 1 at the first that fails.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dockerfile import Step, context, settings_of, steps

FETCHING = (
    "PIP_",
    "UV_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_",
)
READY_S = 60
STOP_S = 40
APART = "TOCSIN_IMAGE_APART"


class Image:
    """A root folder under way, and what ENV, WORKDIR and USER have set so far."""

    def __init__(self, root: Path, project: Path) -> None:
        self.root = root
        self.project = project
        self.environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.folder = "/"
        self.user = "root"
        self.command: list[str] = []
        self.health: list[str] = []

    def carry_out(self, step: Step) -> None:
        """Raises CalledProcessError when a RUN fails."""
        match step.instruction:
            case "RUN":
                fetching = {name: value for name, value in os.environ.items() if name.startswith(FETCHING)}
                subprocess.run(self.inside(step.words, fetching), check=True)
            case "COPY":
                self.copy(*step.text.split())
            case "ENV":
                self.environ |= settings_of(step, self.environ)
            case "WORKDIR":
                self.folder = step.text
                self.path(step.text).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = step.text
            case "HEALTHCHECK":
                self.health = Step("CMD", step.text.partition("CMD ")[2]).words
            case "CMD":
                self.command = step.words

    def path(self, inside: str) -> Path:
        """Where a path of the image lies."""
        return self.root / self.folder.lstrip("/") / inside.lstrip("/") if inside[0] != "/" else self.root / inside[1:]

    def copy(self, *words: str) -> None:
        *sources, target = words
        for file in context(self.project):
            if any(source in {".", str(file)} for source in sources):
                place = self.path(target) / file
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes((self.project / file).read_bytes())

    def inside(self, words: list[str], more: dict[str, str]) -> list[str]:
        """The command line that runs `words` in the image, as its user, with nothing of our environment."""
        settings = [f"{name}={value}" for name, value in (self.environ | more).items()]
        become = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--init-groups"]
        there = ["sh", "-c", 'cd "$0" && exec "$@"', self.folder]
        return ["chroot", str(self.root), *become, "env", "-i", *settings, *there, *words]


@contextmanager
def empty_place() -> Iterator[Path]:
    """A root folder in which this machine's system is seen, and what is written is thrown away."""
    layers = Path(tempfile.mkdtemp(prefix="image-"))
    with ExitStack() as stack:
        stack.callback(layers.rmdir)
        mount(stack, "tmpfs", layers, "-t", "tmpfs")
        for name in ("upper", "work", "root"):
            (layers / name).mkdir()
        root = layers / "root"
        options = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
        mount(stack, "overlay", root, "-t", "overlay", "-o", options)
        mount(stack, "/dev", root / "dev", "--rbind")
        mount(stack, "proc", root / "proc", "-t", "proc")
        mount(stack, "tmpfs", root / "tmp", "-t", "tmpfs", "-o", "mode=1777")
        yield root


def mount(stack: ExitStack, what: str, where: Path, *options: str) -> None:
    subprocess.run(["mount", *options, what, str(where)], check=True)
    stack.callback(subprocess.run, ["umount", "--lazy", str(where)], check=True)


def stand_in_for_the_base(root: Path, project: Path, stack: ExitStack) -> None:
    """Makes the overlay look as an image of Python does: `python` on PATH for every user, no services started by apt,
    and nothing of this project."""
    python = Path(sys.executable).resolve()
    for folder in python.parents:
        (root / folder.relative_to("/")).chmod(0o755)
    for name in ("python", "python3"):
        # No link: a Python looks for its library beside the path by which it was called.
        called = root / "usr/local/bin" / name
        called.unlink(missing_ok=True)
        called.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
        called.chmod(0o755)
    refuse = root / "usr/sbin/policy-rc.d"
    refuse.write_text("#!/bin/sh\nexit 101\n")
    refuse.chmod(0o755)
    hidden = root / project.relative_to("/")
    hidden.mkdir(parents=True, exist_ok=True)
    mount(stack, "tmpfs", hidden, "-t", "tmpfs")


@contextmanager
def started(image: Image) -> Iterator[None]:
    """CMD as process 1 of a process space, healthy; stopped by SIGTERM at the end, which must end it well."""
    alone = ["unshare", "--pid", "--fork", "--kill-child", f"--mount-proc={image.root}/proc"]
    keeper = subprocess.Popen([*alone, *image.inside(image.command, {})])
    try:
        limit = time.monotonic() + READY_S
        while subprocess.run(image.inside(image.health, {}), capture_output=True, check=False).returncode:
            if keeper.poll() is not None or time.monotonic() > limit:
                raise SystemExit("the image is not healthy")
            time.sleep(0.2)
        print("HEALTHY", flush=True)
        yield
        children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        status = keeper.wait(STOP_S)
        print(f"STOPPED with {status}", flush=True)
        if status:
            raise SystemExit("SIGTERM did not end it well")
    finally:
        keeper.kill()
        keeper.wait()


def apart() -> None:
    """Goes on in a mount and process space of our own, so that nothing is left behind whatever happens."""
    if APART not in os.environ:
        again = [sys.executable, *sys.argv]
        os.environ[APART] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *again])


def main(given: argparse.Namespace) -> None:
    with ExitStack() as stack:
        root = stack.enter_context(empty_place())
        stand_in_for_the_base(root, given.project, stack)
        image = Image(root, given.project)
        for step in steps((given.project / "Dockerfile").read_text()):
            began = time.monotonic()
            image.carry_out(step)
            print(f"{step.instruction:11} {time.monotonic() - began:6.1f} s  {step.text[:90]}", flush=True)
        image.environ |= dict(pair.split("=", 1) for pair in given.env)
        image.command = given.command or image.command
        for _ in range(2):
            with started(image):
                if given.beside:
                    subprocess.run(image.inside(given.beside, {}), check=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("project", type=lambda text: Path(text).resolve())
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--command", type=shlex.split)
    parser.add_argument("--beside", type=shlex.split)
    return parser.parse_args()


if __name__ == "__main__":
    apart()
    main(arguments())
