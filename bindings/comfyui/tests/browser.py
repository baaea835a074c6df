"""The pack in the running editor: opens templates in the template browser, presses Run, looks at what the page shows.

    python bindings/comfyui/tests/browser.py --comfyui DIR [--full] [--pictures DIR]

Needs what real_host.py needs, and `chromium`. `--full` trains with the template's own steps; `--pictures` keeps screenshots, those
of the README with `--full`.
"""
from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import time
import unittest
from typing import Any

from PIL import Image

from chromium import Page
from comfy_server import Server

ARGUMENTS = argparse.Namespace()
DIALOG = "[data-testid=template-workflows-content]"
TRAIN = "app.graph._nodes.find(n => n.type === 'SitterTrainSubject')"
# For a test that need not learn anything.
QUICK = """for (const n of app.graph._nodes) for (const w of n.widgets ?? []) {
    if (['embedding_steps', 'layer_steps', 'sample_every'].includes(w.name)) w.value = 2;
    if (w.name === 'count') w.value = 1; }"""


class BrowserTest(unittest.TestCase):
    """One page for all tests; they run in the order of their names."""

    page: Page

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.mkdtemp(prefix="sitter-browser-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, True)
        cls.server = Server(ARGUMENTS.comfyui, cls.folder).__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        cls.page = Page(cls.server.url)
        cls.addClassCleanup(cls.page.close)
        cls.page.wait("Boolean(window.app?.extensionManager?.command && app.graph && document.querySelector('.comfyui-body-top'))", 180)
        # A new user is shown the templates at once; from here on it is this test that opens them.
        cls.page.script("app.extensionManager.setting.set('Comfy.TutorialCompleted', true)")
        time.sleep(5)
        if cls.page.script(f"Boolean(document.querySelector('{DIALOG}'))"):
            cls.page.press("Escape")
            cls.page.wait(f"!document.querySelector('{DIALOG}')")

    def setUp(self) -> None:
        self.addCleanup(self.screenshot, f"end_of_{self._testMethodName[:6]}")

    def template(self, name: str, shot: str = "") -> None:
        """As a person opens it, but for the menu."""
        self.page.script("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        self.page.wait(f"Boolean(document.querySelector('{DIALOG}'))")
        card = f"[data-testid='template-workflow-{name}']"
        for _ in range(10):
            # While the list is still being loaded it goes back to its first entry.
            self.page.click(f"{DIALOG} .p-listbox-option", "sitter")
            time.sleep(2)
            if self.page.script(f"Boolean(document.querySelector(\"{card}\"))"):
                break
        self.page.wait(f"[...document.querySelectorAll('{DIALOG} img')].some(i => i.checkVisibility() && i.naturalWidth > 0)")
        if shot:
            time.sleep(1)
            self.screenshot(shot)
        self.page.click(card)
        self.page.wait(f"app.graph._nodes.some(n => n.type.startsWith('Sitter')) && !document.querySelector('{DIALOG}')")
        unknown = "app.graph._nodes.filter(n => n.has_errors || !n.constructor.nodeData && n.type !== 'MarkdownNote').map(n => n.type)"
        self.assertEqual(self.page.script(unknown), [])

    def run_to_its_end(self, during: Any = None, seconds: float = 900) -> None:
        self.page.script("""window.ended = ''; for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
            app.api.addEventListener(kind, e => { window.ended = kind + ' ' + (e.detail?.exception_message ?? '') }, {once: true})""")
        self.page.click("[data-testid=queue-button]")
        if during:
            during()
        self.assertEqual(self.page.wait("window.ended", seconds), "execution_success ")
        time.sleep(2)

    def widgets(self, kind: str) -> dict[str, Any]:
        return self.page.script(f"""Object.fromEntries(app.graph._nodes.find(n => n.type === {json.dumps(kind)})
            .widgets.filter(w => typeof w.value !== 'object').map(w => [w.name, w.value]))""")

    def fit(self) -> None:
        self.page.script("app.canvas.deselectAll?.(); app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        time.sleep(2)

    def screenshot(self, name: str) -> None:
        """Small enough for a repository."""
        if ARGUMENTS.pictures:
            os.makedirs(ARGUMENTS.pictures, exist_ok=True)
            path = os.path.join(ARGUMENTS.pictures, name + ".png")
            image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
            image = image.resize((1400, round(image.height * 1400 / image.width)), Image.Resampling.LANCZOS)
            image.quantize(200, dither=Image.Dither.NONE).save(path, optimize=True)
            print(f"{path}: {os.path.getsize(path) >> 10} KiB", file=sys.stderr)

    def test_1_the_first_template_opens_with_its_values_runs_and_shows_its_pictures(self) -> None:
        self.template("1_first_picture", "templates")
        widgets = self.widgets("SitterSample")
        told = widgets["count"], widgets["seed"], widgets["width"], widgets["prompt"]
        self.assertEqual(told, (4, 1, -1, "a photo of a fox in the snow"))
        self.fit()
        self.run_to_its_end(lambda: self.page.wait("app.nodePreviewImages && Object.values(app.nodePreviewImages).flat().length", 120))
        self.assertEqual(self.page.script("app.graph._nodes.find(n => n.type === 'PreviewImage').imgs?.length"), 4)
        self.screenshot("first_picture")

    def test_2_the_second_template_teaches_and_shows_the_curve_and_samples_meanwhile(self) -> None:
        self.template("2_teach_a_subject")
        widgets = self.widgets("SitterTrainSubject")
        self.assertEqual((widgets["method"], widgets["seed"], widgets["on_stop"]), ("two_stage", 0, "discard"))
        if not ARGUMENTS.full:
            self.page.script(QUICK)
        self.fit()
        self.run_to_its_end(self.watch_training)
        self.fit()
        self.screenshot("teach_a_subject")

    def watch_training(self) -> None:
        said = f"({TRAIN}.widgets ?? []).map(w => String(w.value)).find(v => v.includes(arguments_))"
        self.page.wait(said.replace("arguments_", "'loss'"), 300)
        # Taller than the curve alone: there are samples below it.
        number = f"String({TRAIN}.id)"
        self.page.wait(f"""(async () => {{
            const urls = app.nodePreviewImages?.[{number}] ?? [];
            if (!urls.length) return false;
            const image = new Image();
            image.src = urls[0];
            await image.decode().catch(() => null);
            return image.naturalHeight > 320; }})()""", 600)
        if ARGUMENTS.full:
            # Late enough for several samples, whatever else the machine does.
            late = said.replace("v.includes(arguments_)", r"/training layers (4[5-9]|[5-8]\d)\//.test(v)")
            self.page.wait(late, 600)
            time.sleep(1)
        self.page.script(f"app.canvas.ds.scale = 1; app.canvas.centerOnNode({TRAIN})")
        time.sleep(1)
        self.screenshot("training")

    def test_3_a_node_shows_its_help(self) -> None:
        self.page.script(f"app.canvas.selectNode({TRAIN})")
        self.page.click("[data-testid=info-button]")
        self.page.wait("document.body.textContent.includes('Not trained twice')")
        self.screenshot("help")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", default=os.environ.get("COMFYUI_DIR"), required="COMFYUI_DIR" not in os.environ)
    parser.add_argument("--pictures", default="", help="a folder for screenshots")
    parser.add_argument("--full", action="store_true", help="the templates with their own steps")
    parser.parse_args(namespace=ARGUMENTS)
    unittest.main(argv=[sys.argv[0], "-v", "--failfast"])
