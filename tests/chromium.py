"""A real Chromium, driven through its DevTools protocol over two pipes: no driver, no package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--metrics-recording-only",
    "--no-first-run",
    "--remote-debugging-pipe",
)


def executable() -> str:
    """The browser's path; skips the test where there is none."""
    chosen = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not chosen:
        pytest.skip(f"needs a Chromium: none of {', '.join(NAMES)} on PATH; set CHROMIUM to its path")
    return chosen


CONTRASTS = """(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => rgb.map((c, i) => linear(c / 255) * [0.2126, 0.7152, 0.0722][i]).reduce((a, b) => a + b);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((c, i) => a * c + (1 - a) * below[i]);
  const style = (e) => getComputedStyle(e);
  const ground = (e) => (e ? over(channels(style(e).backgroundColor), ground(e.parentElement)) : [255, 255, 255]);
  const opacity = (e) => (e ? style(e).opacity * opacity(e.parentElement) : 1);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const low = [];
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const e = text.parentElement;
    const seen = text.data.trim() && e.checkVisibility({ visibilityProperty: true }) && !e.closest("option, noscript");
    if (!seen) continue;
    const [r, g, b, a = 1] = channels(style(e).color);
    const behind = ground(e);
    const [x, y] = [light(over([r, g, b, a * opacity(e)], behind)), light(behind)].sort((p, q) => q - p);
    const contrast = (x + 0.05) / (y + 0.05);
    if (contrast < 4.5) low.push(`${text.data.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return low;
})()"""
"""The texts whose contrast is below 4.5 (WCAG 2.2, 1.4.3), as colours of style sheets make it."""


class Page:
    """One page: what it logs, what it asks the network for, and what a script in it returns."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write
        self.number, self.rest, self.session = 0, b"", ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            block = os.read(self.read, 1 << 16)
            assert block, "Chromium ended"
            self.rest += block
        line, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(line))

    def view(self, width: int, height: int = 900, *, dark: bool = False, touch: bool = False) -> None:
        """The size of the window in CSS pixels, and the colour scheme that the system asks for."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, url: str) -> None:
        """Go to a page, and wait until it has loaded."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def run(self, script: str) -> Any:
        """The value of an expression (a promise is waited for)."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 20) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """A click of a real mouse in the middle of an element."""
        where = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center', "
            "behavior: 'instant'}); const r = e.getBoundingClientRect(); "
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        place = {"x": where[0], "y": where[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **place)

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def key(self, name: str, text: str = "", code: int = 0) -> None:
        """Press and release a key."""
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, text=text, windowsVirtualKeyCode=code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path | None = None, *, of: str = "", whole: bool = False) -> bytes:
        """What the window shows as a PNG; `of`: only the element of that id; `whole`: all of the page."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
        if of:
            box = self.run(
                f"(({{x, y, width, height}}) => ({{x: x + scrollX, y: y + scrollY, width, height, scale: 1}}))"
                f"(document.getElementById({json.dumps(of)}).getBoundingClientRect())"
            )
            options["clip"] = box
        data = base64.b64decode(self.call("Page.captureScreenshot", **options)["data"])
        if path is not None:
            path.write_bytes(data)
        return data

    def low_contrasts(self) -> list[str]:
        """The texts that stand out too little from what is behind them, with their contrast."""
        return list(self.run(CONTRASTS))

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, uncaught exceptions, breaches of the page's policy."""
        found = []
        for event in self.events:
            method, told = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                details = told["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
                found.append(str(told["args"]))
            elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                found.append(str(told["entry"]))
        return found

    def requests(self) -> list[str]:
        """Every address that was asked for, but for data: and blob:."""
        asked = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "blob:"))]


@contextmanager
def opened(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile and one page; ended when the block ends."""
    command = executable()
    to_read, to_write = os.pipe(), os.pipe()  # the browser reads 3 and writes 4

    def rewire() -> None:
        low, high = os.dup(to_read[0]), os.dup(to_write[1])
        os.dup2(low, 3)
        os.dup2(high, 4)

    process = subprocess.Popen(
        [command, *FLAGS, f"--user-data-dir={profile}"],
        preexec_fn=rewire,
        pass_fds=(3, 4),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read[0])
    os.close(to_write[1])
    try:
        yield Page(to_write[0], to_read[1])
    finally:
        os.close(to_read[1])
        os.close(to_write[0])
        process.kill()
        process.wait()
