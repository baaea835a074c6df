"""Chromium without a window, driven through its DevTools protocol. Needs `chromium` and `websocket-client`."""
from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from typing import Any

import websocket


class Page:
    """One page of a browser of its own."""

    def __init__(self, url: str, width: int = 1720, height: int = 1000) -> None:
        self._folder = tempfile.mkdtemp(prefix="sitter-chromium-")
        # No sandbox, because tests run as root in containers; the canvas is drawn in software.
        self._process = subprocess.Popen(
            [shutil.which("chromium") or "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--no-first-run", "--disable-extensions", "--remote-debugging-port=0", "--remote-allow-origins=*",
             f"--window-size={width},{height}", f"--user-data-dir={self._folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        self._socket: Any = None
        try:
            self._socket = websocket.create_connection(self._address(), timeout=120)
        except BaseException:
            self.close()
            raise
        self._number = 0
        self.send("Page.enable")
        self.send("Runtime.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Page.navigate", url=url)

    def _address(self) -> str:
        deadline = time.monotonic() + 60
        file = os.path.join(self._folder, "DevToolsActivePort")
        while time.monotonic() < deadline:
            try:
                with open(file) as port:
                    base = f"http://127.0.0.1:{port.readline().strip()}"
                with urllib.request.urlopen(base + "/json/list", timeout=10) as answer:
                    return next(one["webSocketDebuggerUrl"] for one in json.load(answer) if one["type"] == "page")
            except (OSError, StopIteration, ValueError):
                time.sleep(0.2)
        raise RuntimeError("chromium did not start")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, True)

    def send(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]

    def script(self, expression: str) -> Any:
        """The value of an expression, or of what it promises."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {json.dumps(answer['exceptionDetails'])[:800]}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """The value of an expression once it is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.script(expression)
            if found:
                return found
            time.sleep(0.25)
        said = self.script("document.body.innerText")
        raise AssertionError(f"waited {seconds} s for: {expression}; the page says: {said[:600]}")

    def click(self, selector: str, having: str = "") -> None:
        """With the mouse, on the first visible element of the selector that has a text in it, once it has come to rest."""
        where, place, before = f"""(() => {{
            const found = [...document.querySelectorAll({json.dumps(selector)})]
                .find(e => e.checkVisibility() && e.textContent.includes({json.dumps(having)}));
            found?.scrollIntoView({{block: 'center'}});
            const box = found?.getBoundingClientRect();
            return box && [box.x + box.width / 2, box.y + box.height / 2] }})()""", None, None
        while place is None or place != before:
            before, place = place, self.wait(where)
            time.sleep(0.3)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self) -> bytes:
        """A PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
