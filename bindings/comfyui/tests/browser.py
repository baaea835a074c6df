"""The pack in the running editor: opens a template as a person does, presses Run, and takes the README's screenshots.

    python bindings/comfyui/tests/browser.py --comfyui DIR --pictures DIR [--full]

Needs what real_host.py needs, and `chromium` with `chromedriver` (Debian: chromium, chromium-driver). Without --full the trainings
get a few steps.
"""
from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from typing import Any

from PIL import Image

from comfy_server import Server

# As an API client would be told; a template's own values otherwise.
QUICK = """for (const n of app.graph._nodes) for (const w of n.widgets ?? []) {
    if (['embedding_steps', 'layer_steps'].includes(w.name)) w.value = 2;
    if (w.name === 'count') w.value = 1; }"""


class Browser:
    """Chromium through WebDriver's plain HTTP."""

    def __init__(self, width: int = 1720, height: int = 1000) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.base = f"http://127.0.0.1:{port}"
        # SwiftShader draws the canvas without a GPU; --no-sandbox because tests run as root in containers.
        options = {"args": ["--headless=new", "--no-sandbox", f"--window-size={width},{height}", "--disable-gpu", "--hide-scrollbars"],
                   "binary": shutil.which("chromium")}
        for _ in range(50):
            try:
                self.send("GET", "/status")
                break
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        made = self.send("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "SEVERE"}}}})
        self.base += f"/session/{made['sessionId']}"
        self.send("POST", "/timeouts", {"script": 60_000})

    def close(self) -> None:
        try:
            self.send("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(10)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method in ("GET", "DELETE") else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:1500]) from None

    def script(self, text: str, *arguments: Any) -> Any:
        return self.send("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def wait(self, text: str, seconds: float = 60, *arguments: Any) -> Any:
        """Until the expression is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.script(f"return {text}", *arguments)
            if found:
                return found
            time.sleep(0.25)
        raise AssertionError(f"waited {seconds} s for: {text}")

    def click(self, selector: str, having: str = "") -> None:
        """The first visible element of the selector, with a text in it."""
        found = "[...document.querySelectorAll(arguments[0])].find(e => e.offsetParent && e.textContent.includes(arguments[1]))"
        self.wait(f"Boolean({found})", 30, selector, having)
        element = self.script(f"return {found}", selector, having)
        self.send("POST", f"/element/{next(iter(element.values()))}/click")

    def screenshot(self, path: str, width: int = 1400) -> None:
        """A PNG of a few colours, small enough for a repository."""
        image = Image.open(io.BytesIO(base64.b64decode(self.send("GET", "/screenshot")))).convert("RGB")
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
        image.quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {os.path.getsize(path) >> 10} KiB")


class Editor:
    def __init__(self, browser: Browser, server: Server) -> None:
        self.browser = browser
        browser.send("POST", "/url", {"url": server.url})
        browser.wait("Boolean(window.app?.graph && window.app.extensionManager)", 90)
        # What a new user is shown first would stand before everything.
        browser.script("return app.extensionManager.setting.set('Comfy.TutorialCompleted', true)")
        time.sleep(3)
        browser.send("POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": [
            {"type": "keyDown", "value": "\ue00c"}, {"type": "keyUp", "value": "\ue00c"}]}]})

    def template(self, name: str, shot: str = "") -> None:
        """Through the template browser."""
        self.browser.script("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        self.browser.wait("Boolean(document.querySelector('[data-testid=template-workflows-content]'))")
        self.browser.click("[data-testid=template-workflows-content] .p-listbox-option", "sitter")
        time.sleep(1)
        if shot:
            self.browser.screenshot(shot)
        self.browser.click(f"[data-testid='template-workflow-{name}']")
        self.browser.wait("app.graph._nodes.some(n => n.type.startsWith('Sitter'))", 30)
        self.browser.wait("!document.querySelector('[data-testid=template-workflows-content]')", 30)
        broken = self.browser.script("return app.graph._nodes.filter(n => n.has_errors || !n.constructor.nodeData && n.type !== 'MarkdownNote').map(n => n.type)")
        assert not broken, broken

    def fit(self) -> None:
        self.browser.script("app.canvas.deselectAll?.(); return app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        time.sleep(1.5)

    def run(self) -> None:
        self.browser.script("""window.ended = ''; for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
            app.api.addEventListener(kind, e => { window.ended = kind + ' ' + (e.detail?.exception_message ?? '') }, {once: true})""")
        self.browser.click("[data-testid=queue-button]")

    def ended(self, seconds: float) -> str:
        said = self.browser.wait("window.ended", seconds)
        time.sleep(2)
        return said

    def widgets(self, kind: str) -> dict[str, Any]:
        return self.browser.script("""return Object.fromEntries(app.graph._nodes.find(n => n.type === arguments[0])
            .widgets.filter(w => typeof w.value !== 'object').map(w => [w.name, w.value]))""", kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", default=os.environ.get("COMFYUI_DIR"), required="COMFYUI_DIR" not in os.environ)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    os.makedirs(arguments.pictures, exist_ok=True)
    base = tempfile.mkdtemp(prefix="sitter-browser-")
    try:
        with Server(arguments.comfyui, base) as server:
            browser = Browser()
            try:
                check(Editor(browser, server), arguments.pictures, arguments.full)
            finally:
                browser.close()
    finally:
        shutil.rmtree(base, ignore_errors=True)


def check(editor: Editor, pictures: str, full: bool) -> None:
    browser = editor.browser

    def shot(name: str) -> str:
        return os.path.join(pictures, name + ".png")

    editor.template("1_first_picture", shot("templates"))
    widgets = editor.widgets("SitterSample")
    assert (widgets["count"], widgets["seed"], widgets["width"], widgets["prompt"]) == (4, 1, -1, "a photo of a fox in the snow"), widgets
    editor.run()
    assert editor.ended(120) == "execution_success ", browser.script("return window.ended")
    assert browser.script("return app.graph._nodes.find(n => n.type === 'PreviewImage').imgs?.length") == 4
    editor.fit()
    browser.screenshot(shot("first_picture"))

    editor.template("2_teach_a_subject")
    widgets = editor.widgets("SitterTrainSubject")
    assert (widgets["method"], widgets["seed"], widgets["on_stop"]) == ("two_stage", 0, "discard"), widgets
    if not full:
        browser.script(QUICK)
    editor.fit()
    editor.run()
    node = "app.graph._nodes.find(n => n.type === 'SitterTrainSubject')"
    browser.wait(f"({node}.widgets ?? []).some(w => String(w.value).includes('loss'))", 240)
    if full:
        # Let the curve grow.
        browser.wait(f"({node}.widgets ?? []).some(w => String(w.value).startsWith('training layers'))", 240)
        time.sleep(4)
    browser.screenshot(shot("training"))
    assert editor.ended(900) == "execution_success ", browser.script("return window.ended")
    editor.fit()
    browser.screenshot(shot("teach_a_subject"))

    # The help page of a node, as its info button shows it.
    browser.script(f"app.canvas.selectNode({node})")
    time.sleep(1)
    browser.click("[data-testid=info-button]")
    browser.wait("document.body.textContent.includes('Not trained twice')", 30)
    browser.screenshot(shot("help"))
    print("browser: 2 templates opened, queued and finished; help page shown")


if __name__ == "__main__":
    main()
