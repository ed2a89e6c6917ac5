"""Chromium without a window, led over its debugging pipe: no driver and no network port are needed."""

import base64
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from select import select
from signal import SIGTERM
from typing import Any

PATIENCE = 60.0  # seconds an answer may take on a busy machine


class Browser:
    """One tab. Collects what the page requested and complained of.

    Attributes:
        requests: addresses asked for, in order; data: ones left out, as they ask nothing of anybody.
        complaints: uncaught exceptions, errors and warnings of the console, violated policies.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask Chromium for something of its DevTools protocol and wait for the answer."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._next(until)
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def open(self, page: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file at a viewport's width in CSS pixels, as a telephone would below 600, and wait until it stands."""
        self.requests.clear()
        self.complaints.clear()
        scale = 2 if width < 600 else 1
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.call("Page.navigate", url=page.absolute().as_uri())
        until = time.monotonic() + PATIENCE
        while not self._loaded:
            self._next(until)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression, waited for if it is a promise."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Until a JavaScript expression is true."""
        until = time.monotonic() + PATIENCE
        while not self.value(expression):
            if time.monotonic() > until:
                raise TimeoutError(f"never true: {expression}")
            time.sleep(0.05)

    def move(self, x: float, y: float) -> None:
        """Point at a place of the viewport."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page, or of the viewport alone."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **(self._clip() if whole else {}))
        path.write_bytes(base64.b64decode(found["data"]))

    def _clip(self) -> dict[str, Any]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select([self._read], [], [], max(0.0, until - time.monotonic()))
            got = os.read(self._read, 1 << 20) if ready else b""
            if not got:
                raise TimeoutError("Chromium ended" if ready else f"Chromium gave no answer in {PATIENCE:.0f} s")
            self._buffer += got
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, values: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            address = values["request"]["url"]
            self.requests += [] if address.startswith("data:") else [address]
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(values["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(values["args"]))
        elif event == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(values["entry"]))


@contextmanager
def chromium(program: str, profile: Path) -> Iterator[Browser]:
    """A Chromium with a profile of its own, ended with the block."""
    read_here, write_there = os.pipe()
    read_there, write_here = os.pipe()
    # the only pages are our own, and root or a container may not have its sandbox
    # Chromium reads from descriptor 3 and writes to 4; numbers of 10 and above are in neither's way
    ends = [fcntl(end, F_DUPFD_CLOEXEC, 10) for end in (read_there, write_there)]
    silent = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    command = [program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run",
               "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-background-networking",
               "--force-color-profile=srgb", "--no-sandbox"]  # fmt: skip
    places = [
        (os.POSIX_SPAWN_DUP2, end, place) for end, place in zip([*ends, silent, silent], (3, 4, 1, 2), strict=True)
    ]
    process = os.posix_spawn(program, command, os.environ, file_actions=places)
    for end in (read_there, write_there, silent, *ends):
        os.close(end)
    try:
        yield Browser(write_here, read_here)
    finally:
        os.close(write_here)
        os.close(read_here)
        os.kill(process, SIGTERM)
        os.waitpid(process, 0)
