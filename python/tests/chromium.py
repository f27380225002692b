"""A headless Chromium, told what to do by its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ANSWER_S = 60.0  # the machine may be busy
KEYS = {
    "Enter": ("\r", 13), "Tab": ("", 9), "Escape": ("", 27), "End": ("", 35), "Home": ("", 36),
    "ArrowLeft": ("", 37), "ArrowUp": ("", 38), "ArrowRight": ("", 39), "ArrowDown": ("", 40),
}  # fmt: skip


def find_chromium() -> str:
    """The program; where there is none the test is skipped, but not in continuous integration."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        reason = "there is no Chromium (Debian: apt-get install chromium)"
        if os.environ.get("CI") or os.environ.get("WERROR"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Chromium:
    """A browser with one tab.

    `errors` is what its console complained of, `requests` every URL that was asked for.
    """

    def __init__(self, folder: Path) -> None:
        from websockets.sync.client import connect

        self.errors: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._session = ""
        self._open = contextlib.ExitStack()
        command = [find_chromium(), "--headless=new", "--disable-gpu", "--hide-scrollbars",
                   "--no-first-run", "--disable-background-networking",
                   "--disable-component-update", "--disable-dev-shm-usage",
                   "--remote-debugging-port=0", f"--user-data-dir={folder}"]  # fmt: skip
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # it refuses to run as root with one
        self._process = subprocess.Popen(
            [*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._socket = self._open.enter_context(
                connect(
                    self._address(folder), max_size=None, open_timeout=ANSWER_S, ping_interval=None
                )
            )
            target = self.tell("Target.createTarget", url="about:blank")["targetId"]
            session = self.tell("Target.attachToTarget", targetId=target, flatten=True)
            self._session = session["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.tell(f"{domain}.enable")
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def _address(self, folder: Path) -> str:
        port = folder / "DevToolsActivePort"
        deadline = time.monotonic() + ANSWER_S
        while not (port.exists() and len(lines := port.read_text().split()) == 2):
            assert self._process.poll() is None, "Chromium did not start"
            assert time.monotonic() < deadline, "Chromium did not open its port in time"
            time.sleep(0.02)
        return f"ws://127.0.0.1:{lines[0]}{lines[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._open.close()
        self._process.terminate()
        try:
            self._process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tell(self, method: str, **params: Any) -> Any:
        """One command and its answer; what happened meanwhile is taken note of."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=ANSWER_S))
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer.get('error')}"
                return answer["result"]
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _note(self, event: str, params: Any) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(json.dumps(params["args"]))
        elif event == "Page.javascriptDialogOpening":
            self.errors.append(f"a dialog: {params['message']}")

    def open(self, url: str) -> None:
        self.tell("Page.navigate", url=url)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page, of a promise when it is kept."""
        answer = self.tell(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 30.0) -> Any:
        """The value of the expression as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < deadline, f"it did not come true in time: {expression}"
            time.sleep(0.05)
        return value

    def press(self, *keys: str) -> None:
        for key in keys:
            shift = key.startswith("Shift+")
            text, code = KEYS[key.removeprefix("Shift+")]
            for kind in ("keyDown", "keyUp"):
                typed = {"text": text} if text and kind == "keyDown" else {}
                self.tell(
                    "Input.dispatchKeyEvent", type=kind, key=key.removeprefix("Shift+"),
                    windowsVirtualKeyCode=code, modifiers=8 if shift else 0, **typed,
                )  # fmt: skip

    def type(self, text: str) -> None:
        self.tell("Input.insertText", text=text)

    def focused(self, expression: str) -> Any:
        """An expression of `e`, the element that has the focus."""
        return self.js(f"(e => {expression})(document.activeElement)")

    def resize(self, width: int, height: int) -> None:
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def prefer(self, **features: str) -> None:
        """prefer(color_scheme="dark", reduced_motion="reduce")"""
        wanted = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self.tell("Emulation.setEmulatedMedia", features=wanted)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        shot = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
