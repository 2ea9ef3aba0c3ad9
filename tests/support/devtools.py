"""Chromium without a window, driven step by step by its DevTools protocol."""

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.support.browser import SECONDS, chromium

#: Without a GPU, WebGL is drawn by SwiftShader.
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--remote-debugging-port=0"),
)

#: Events that tell of errors in a page, or of what it asks the network for.
ERRORS = ("Runtime.exceptionThrown", "Log.entryAdded")
REQUEST = "Network.requestWillBeSent"


class Tab:
    """A page in the browser."""

    def __init__(self, socket: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._socket, self._loop = socket, loop
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; events that come meanwhile are kept."""
        self._number += 1
        answer = self._answer({"id": self._number, "method": method, "params": params})
        return self._loop.run_until_complete(asyncio.wait_for(answer, SECONDS))

    async def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        await self._socket.write_message(json.dumps(message))
        while True:
            text = await self._socket.read_message()
            assert text is not None, "the browser ended"
            answer = json.loads(text)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(
        self, path: Path, *, width: int = 1280, height: int = 1000, dark: bool = False
    ) -> None:
        """Open a file, and wait until it says that it is ready."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.until("document.documentElement?.dataset.ready === 'yes'")

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, of a promise what it promises."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        deadline = time.monotonic() + SECONDS
        while not self.run(condition):
            assert time.monotonic() < deadline, condition
            time.sleep(0.05)

    def drag(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place, and release it at the last."""
        for kind, (x, y) in (
            *[("mouseMoved", places[0]), ("mousePressed", places[0])],
            *[("mouseMoved", place) for place in places[1:]],
            ("mouseReleased", places[-1]),
        ):
            pressed = 0 if kind == "mouseMoved" and (x, y) == places[0] else 1
            self.call(
                "Input.dispatchMouseEvent",
                **{"type": kind, "x": x, "y": y, "clickCount": 1, "buttons": pressed},
                **({} if kind == "mouseMoved" and not pressed else {"button": "left"}),
            )

    def hover(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, file: Path) -> None:
        """Write a picture of what the window shows to a PNG file."""
        found = self.call("Page.captureScreenshot")
        file.write_bytes(base64.b64decode(found["data"]))

    def errors(self) -> list[dict[str, Any]]:
        """Return what the console shows as an error."""
        return [
            event["params"]
            for event in self.events
            if event["method"] in ERRORS
            and event["params"].get("entry", {}).get("level", "error") == "error"
        ]

    def requests(self) -> list[str]:
        """Return the URLs that the page asked for, other than data that it has itself."""
        urls = [e["params"]["request"]["url"] for e in self.events if e["method"] == REQUEST]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]


@contextmanager
def browser_tab(folder: Path) -> Iterator[Tab]:
    """Start a browser with a profile in a folder; downloads go there too."""
    program = [chromium(), *OPTIONS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        url = debugger_url(folder / "profile" / "DevToolsActivePort")
        socket = loop.run_until_complete(connected(url))
        tab = Tab(socket, loop)
        tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        yield tab
        socket.close()
    finally:
        process.terminate()
        process.wait(SECONDS)
        loop.close()


async def connected(url: str) -> Any:
    from tornado.websocket import websocket_connect

    return await websocket_connect(url, max_message_size=2**28)


def debugger_url(file: Path) -> str:
    """Return the address of the first page, once the browser has written its port."""
    deadline = time.monotonic() + SECONDS
    while not (file.exists() and file.read_text().count("\n")):
        assert time.monotonic() < deadline, "the browser did not start"
        time.sleep(0.05)
    port = int(file.read_text().splitlines()[0])
    with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS) as answer:
        targets = json.load(answer)
    return next(t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page")
