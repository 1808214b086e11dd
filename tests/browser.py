"""A headless Chromium for tests, driven over its debugging pipe: no port, no driver, no package."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
_ANSWER_S = 20.0

# Chromium reads commands from file 3 and answers on file 4. The copies lie above both, so that none is overwritten.
_ON_3_AND_4 = """
import fcntl, os, sys
to_read, to_write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(to_read, 3)
os.dup2(to_write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """The program, where there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One tab. What the page wrote to its console, and what broke in it, is kept in `complaints`."""

    def __init__(self, program: str, folder: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        launcher = (sys.executable, "-ISc", _ON_3_AND_4, str(to_read), str(to_write))
        self._process = subprocess.Popen(
            [*launcher, program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        self.complaints: deque[str] = deque(maxlen=100)
        self.requested: deque[str] = deque(maxlen=1000)
        self._answers: Queue[dict[str, Any]] = Queue()
        self._last = 0
        self._session: str | None = None
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def open(self, url: str) -> None:
        """Goes to `url`, as if it were typed."""
        self.command("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        answer = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"].get("exception", {}).get("description", answer))
        return answer["result"].get("value")

    def wait(self, script: str, limit_s: float = 20.0) -> None:
        """Returns once an expression is true in the page."""
        deadline = time.monotonic() + limit_s
        while True:
            trouble = ""
            try:
                if self.run(f"Boolean({script})"):
                    return
            except AssertionError as error:
                trouble = str(error)
            if time.monotonic() > deadline:
                shown = self.run("document.body?.innerText")
                raise AssertionError(f"never true: {script}\n{trouble}\n{list(self.complaints)}\n{shown}")
            time.sleep(0.05)

    def text(self, selector: str = "body") -> str:
        """What a person reads in an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def type(self, text: str) -> None:
        """Types into what has the focus."""
        self.command("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Presses a key: Enter or Tab."""
        code = {"Enter": 13, "Tab": 9}[key]
        details = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.command("Input.dispatchKeyEvent", type="keyDown", **details, **({"text": "\r"} if key == "Enter" else {}))
        self.command("Input.dispatchKeyEvent", type="keyUp", **details)

    def look(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Takes a picture, for people."""
        scheme = "dark" if dark else "light"
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        time.sleep(0.4)  # what moves comes to rest
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot")["data"]))

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol and its answer."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            try:
                answer = self._answers.get(timeout=_ANSWER_S)
            except Empty:
                raise AssertionError(f"Chromium does not answer {method}") from None
            if answer["id"] == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def close(self) -> None:
        """Ends the browser and everything it started."""
        os.close(self._write)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(5)
        self._reader.join(5)
        os.close(self._read)

    def attach(self) -> None:
        """Takes the tab that there is at the start."""
        targets = self.command("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self.command("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def _listen(self) -> None:
        rest = b""
        while part := os.read(self._read, 1 << 16):
            *whole, rest = (rest + part).split(b"\0")
            for text in whole:
                self._take(json.loads(text))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers.put(message)
        elif message["method"] == "Runtime.exceptionThrown":
            details = message["params"]["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.complaints.append(f"{message['params']['entry']['text']} {message['params']['entry'].get('url', '')}")
        elif message["method"] == "Network.requestWillBeSent":
            self.requested.append(message["params"]["request"]["url"])


@contextmanager
def browsing(program: str, folder: Path) -> Iterator[Browser]:
    """A browser that does not outlive the block."""
    browser = Browser(program, folder)
    try:
        browser.attach()
        yield browser
    finally:
        browser.close()
