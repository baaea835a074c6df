"""The benchmark run: jobs that are there whole or not at all, runs that go on where they were, the report."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np

import sitter
from sitter.dreambench import data, drawings, published, store, summary
from sitter.dreambench.plan import Plan, PlanError
from support import FOX

SUBJECTS = FOX[0].parents[1]
GOLDEN = Path(__file__).resolve().parents[3] / "tests" / "golden" / "evaluate"
NETWORKS = ["--dino", str(GOLDEN / "dino"), "--clip", str(GOLDEN / "clip")]
LIST = """Classes

subject_name,class
fox,fox
dog,dog
robot,robot,object

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a {0} {1} in the snow'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a {0} {1} wearing a red hat'.format(unique_token, class_token)
]
"""


def dataset(root: Path) -> Path:
    """Three subjects in the form of google/dreambooth."""
    for name in ("fox", "dog", "robot"):
        (root / "dataset" / name).mkdir(parents=True)
        for picture in sorted((SUBJECTS / name).glob("*.png"))[:3]:
            shutil.copy(picture, root / "dataset" / name)
    (root / "dataset" / "prompts_and_classes.txt").write_text(LIST, encoding="utf-8")
    return root


def command(root: Path, out: Path, *more: str, model: str = "fake:steps=2") -> "list[str]":
    return [sys.executable, "-m", "sitter.dreambench", "--data", str(root), "--model", model, "--out", str(out), *NETWORKS,
            "--class-pictures", "2", *more]


def run(*arguments: object, code: int = 0, **settings: object) -> "subprocess.CompletedProcess[str]":
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(command(*arguments, **settings), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def results(out: Path) -> "list[bytes]":
    return [(out / name).read_bytes() for name in ("results.json", "results.csv", "report.html")]


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def test_it_is_read_as_google_publishes_it(self):
        found = data.read(dataset(self.folder))
        self.assertEqual([(s.name, s.class_word, s.live, len(s.pictures)) for s in found.subjects],
                         [("fox", "fox", False, 3), ("dog", "dog", True, 3), ("robot", "robot", False, 3)])
        fox, dog, _ = found.subjects
        self.assertEqual(found.templates(fox), ["a {} fox in the jungle", "a {} fox in the snow"])
        self.assertEqual(found.templates(dog)[1], "a {} dog wearing a red hat")
        self.assertEqual(data.read(self.folder / "dataset"), found)

    def test_what_is_missing_is_named(self):
        with self.assertRaisesRegex(data.DataError, "prompts_and_classes.txt.*google/dreambooth"):
            data.read(self.folder)
        dataset(self.folder)
        shutil.rmtree(self.folder / "dataset" / "robot")
        with self.assertRaisesRegex(data.DataError, "robot"):
            data.read(self.folder)
        (self.folder / "dataset" / "robot").mkdir()
        with self.assertRaisesRegex(data.DataError, "robot.*no pictures"):
            data.read(self.folder)

    def test_a_plan_takes_subjects_prompts_and_for_protocol_c_every_reference(self):
        found = data.read(dataset(self.folder))
        settings = dict(model="m", protocol="B", method="lora", identifier="[V]", seed=3, per_prompt=1, class_pictures=1,
                        train={}, sample={}, networks={"dino": "d"})
        plan = Plan.make(found, ["dog"], [2], **settings)
        self.assertEqual([unit.templates for unit in plan.units], [{"02": "a {} dog wearing a red hat"}])
        jobs = plan.jobs(self.folder)
        self.assertEqual([job.id for job in jobs], ["teach/dog", "draw/dog/02", "untouched/dog", "class/dog", "score/dog"])
        each = Plan.make(found, ["dog", "fox"], None, **{**settings, "protocol": "C"})
        self.assertEqual([unit.name for unit in each.units], [f"{n}-{i}" for n in ("dog", "fox") for i in (1, 2, 3)])
        self.assertEqual({len(unit.references) for unit in each.units}, {1})
        self.assertNotEqual(plan.seed_of("teach", "dog"), plan.seed_of("teach", "fox"))
        for wrong, told in ((dict(subjects=["cow"]), "cow"), (dict(prompts=[3]), "1 to 2"), (dict(prompts=[0]), "1 to 2")):
            with self.subTest(told), self.assertRaisesRegex(PlanError, told):
                Plan.make(found, **wrong, **settings)


class Running(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.root)
        cls.data = dataset(cls.root / "data")
        cls.quiet = cls.root / "quiet"
        cls.first = run(cls.data, cls.quiet)

    def out(self) -> Path:
        out = self.root / self.id().rsplit(".", 1)[-1]
        self.addCleanup(shutil.rmtree, out, True)
        return out

    def test_every_job_is_done_once_and_the_results_say_what_they_are(self):
        log = [json.loads(line)["job"] for line in (self.quiet / "log.jsonl").read_text().splitlines()]
        self.assertEqual((len(log), len(set(log))), (18, 18))
        again = run(self.data, self.quiet)
        self.assertIn("18 jobs, 18 done already", again.stderr)
        self.assertEqual(len((self.quiet / "log.jsonl").read_text().splitlines()), 18)
        self.assertEqual(again.stdout, self.first.stdout)
        found = json.loads((self.quiet / "results.json").read_text(encoding="utf-8"))
        self.assertEqual((found["overall"]["subjects"], found["overall"]["pictures"], found["failed"]), (3, 6, []))
        mean = np.mean([np.mean([one["dino"] for one in unit["scores"]["each"]]) for unit in found["units"]])
        self.assertAlmostEqual(found["overall"]["dino"], mean)
        self.assertEqual(found["units"][0]["scores"]["each"][0]["name"], "pictures/fox/01/0.png")
        self.assertNotIn(str(self.root), (self.quiet / "results.json").read_text(encoding="utf-8"))
        self.assertEqual(len((self.quiet / "results.csv").read_text().splitlines()), 7)

    def test_a_run_that_is_killed_goes_on_to_the_same_results_byte_for_byte(self):
        out, environment = self.out(), dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        slow, kills = command(self.data, out, model="fake:steps=2,step_ms=40"), 0
        for seconds in (1.2, 1.6, 2.0, 2.4, 0):
            process = subprocess.Popen(slow, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                self.assertEqual(process.wait(seconds or 120), 0)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        self.assertGreater(kills, 0)
        leftovers = [path for path in out.rglob("*") if store.UNFINISHED in path.name]
        self.assertEqual(leftovers, [])
        undisturbed = self.root / "undisturbed"
        self.addCleanup(shutil.rmtree, undisturbed, True)
        run(self.data, undisturbed, model="fake:steps=2,step_ms=40")
        self.assertEqual(results(out), results(undisturbed))

    def test_a_full_disk_stops_the_run_and_nothing_half_written_is_taken_for_done(self):
        out, environment = self.out(), dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        limited = ("import resource, signal, runpy, sys\n"
                   "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
                   "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
                   "runpy.run_module('sitter.dreambench', run_name='__main__')")
        full = [sys.executable, "-c", limited, *command(self.data, out)[3:]]
        done = subprocess.run(full, env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("error: ", done.stderr)
        self.assertFalse((out / "results.json").exists())
        run(self.data, out)
        self.assertEqual(results(out), results(self.quiet))

    def test_a_subject_that_cannot_be_taught_is_listed_and_mended_by_the_next_run(self):
        out = self.out()
        broken = self.root / "broken"
        self.addCleanup(shutil.rmtree, broken)
        dataset(broken)
        picture = broken / "dataset" / "dog" / "2.png"
        whole = picture.read_bytes()
        picture.write_bytes(b"not a picture")
        run(broken, out, code=2)
        found = json.loads((out / "results.json").read_text(encoding="utf-8"))
        self.assertEqual(found["overall"]["subjects"], 2)
        failed = {one["job"]: one["message"] for one in found["failed"]}
        self.assertIn("2.png", failed["teach/dog"])
        self.assertIn("teach/dog failed", failed["draw/dog/01"])
        self.assertIn("2.png", (out / "report.html").read_text(encoding="utf-8"))
        picture.write_bytes(whole)
        run(broken, out)
        self.assertEqual(json.loads((out / "results.json").read_text(encoding="utf-8"))["failed"], [])

    def test_a_folder_with_other_settings_or_at_work_is_left_alone(self):
        done = run(self.data, self.quiet, "--seed", "1", code=1)
        self.assertRegex(done.stderr, r"other settings \(seed\)")
        with store.lock(self.quiet):
            self.assertIn("another run is at work", run(self.data, self.quiet, code=1).stderr)
        done = run(self.data, self.quiet, model="fake:steps=3", code=1)
        self.assertRegex(done.stderr, r"other settings \(model\)")

    def test_a_model_or_network_that_cannot_be_opened_ends_the_run_before_anything_is_taught(self):
        out = self.out()
        self.assertIn("no/dino", run(self.data, out, "--dino", "no/dino", code=1).stderr)
        self.assertFalse(out.exists())
        told = run(self.data, out, model="no/model", code=1).stderr
        self.assertRegex(told, r"error: .*/no/model: is not a model folder")
        self.assertEqual(told.count("no/model"), 1)
        self.assertFalse((out / "failed").exists())

    def test_pictures_can_be_drawn_first_and_scored_later(self):
        out, environment = self.out(), dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        self.assertIn("--no-scores", run(self.data, out, "--no-scores", code=1).stderr)
        plain = [word for word in command(self.data, out, "--no-scores") if word not in NETWORKS]

        def draw():
            return subprocess.run(plain, env=environment, capture_output=True, text=True, timeout=300)

        drawn = draw()
        self.assertEqual(drawn.returncode, 0, drawn.stderr)
        self.assertRegex(drawn.stdout, r"drawn +6 pictures, not scored")
        self.assertFalse((out / "scores").exists())
        self.assertEqual((out / "report.html").read_text(encoding="utf-8").count("<img "), 9 + 6)
        self.assertIn("18 jobs, 15 done already", run(self.data, out).stderr)
        self.assertEqual(results(out), results(self.quiet))
        self.assertIn("other settings (networks)", draw().stderr)

    def test_pictures_of_one_reference_are_weighed_by_picture(self):
        out = self.out()
        run(self.data, out, "--protocol", "C", "--subjects", "fox", "--prompts", "2", "--per-prompt", "2")
        found = json.loads((out / "results.json").read_text(encoding="utf-8"))
        each = [one["dino"] for unit in found["units"] for one in unit["scores"]["each"]]
        self.assertEqual((len(found["units"]), len(each)), (3, 6))
        self.assertAlmostEqual(found["overall"]["dino"], np.mean(each))

    def test_the_embedded_model_goes_through_the_whole_benchmark(self):
        out = self.out()
        quick = ["embedding_steps=1", "layer_steps=1", "batch_size=1", "augment=0"]
        options = [word for setting in quick for word in ("--train", setting)]
        run(self.data, out, "--subjects", "fox", "--prompts", "1", *options, model="embedded:")
        found = json.loads((out / "results.json").read_text(encoding="utf-8"))
        self.assertEqual((found["failed"], found["overall"]["pictures"]), ([], 1))
        self.assertEqual([loss[0] for loss in found["units"][0]["losses"]], ["embedding", "layers"])
        self.assertIsNotNone(found["overall"]["pres"])

    def test_a_folder_of_anybodys_pictures_is_scored(self):
        out, drawn = self.out(), self.root / "drawn"
        self.addCleanup(shutil.rmtree, drawn)
        drawn.mkdir()
        for i, picture in enumerate([FOX[0], SUBJECTS / "dog" / "1.png", SUBJECTS / "robot" / "1.png"]):
            shutil.copy(picture, drawn / f"{i}.png")
        (drawn / "0.txt").write_text("a {} fox in the jungle\n")
        (drawn / "texts.json").write_text(json.dumps({"1.png": "a {} dog"}))
        (drawn / "3.png").write_bytes(b"not a picture")
        arguments = ["evaluate", "--pictures", str(drawn), "--references", str(SUBJECTS / "fox"), "--text", "a {} thing",
                     "--out", str(out), *NETWORKS]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        done = subprocess.run([sys.executable, "-m", "sitter.dreambench", *arguments], env=environment, capture_output=True,
                              text=True, timeout=120)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertRegex(done.stdout, r"DINO +0\.\d{4}")
        scores = json.loads((out / "results.json").read_text(encoding="utf-8"))["units"][0]["scores"]
        self.assertEqual([one["text"] for one in scores["each"]], ["a {} fox in the jungle", "a {} dog", "a {} thing"])
        self.assertEqual([one["name"] for one in scores["failed"]], ["3.png"])
        self.assertEqual(scores["each"][0]["copy"], True)

    def test_the_report_stands_alone_and_marks_what_cannot_be_compared(self):
        page = (self.quiet / "report.html").read_text(encoding="utf-8")
        self.assertEqual(re.findall(r'(?:src|href)="(?!data:|#).{,20}|http.{,20}', page), [])
        rows = re.findall(r'<tr class="([\w ]*)">(.*?)</tr>', page)
        own = [row for kind, row in rows if kind == "ours unlike"]
        self.assertEqual(len(own), 2)
        for reason in ("3 subjects, not 30", "2 prompts, not 25", "DINO is not ViT-S/16", "CLIP is not ViT-B/32"):
            self.assertIn(reason, own[0])
        marked = [row for kind, row in rows if kind == "unlike"]
        self.assertEqual(len(marked), sum(row.protocol == "?" for row in published.ROWS))
        self.assertTrue(all("not stated" in row for row in marked))
        self.assertEqual(page.count("<img "), 9 + 6)
        self.assertIn("polyline", page)

    def test_the_report_is_sorted_in_a_browser(self):
        try:
            sys.path.append(str(Path(__file__).resolve().parents[2] / "comfyui" / "tests"))
            from chromium import Page

            if shutil.which("chromium") is None:
                raise ImportError("chromium is not installed")
        except ImportError as why:
            print(f"not looked at in a browser: {why}", file=sys.stderr)
            return
        page = Page((self.quiet / "report.html").as_uri(), 1280, 900)
        self.addCleanup(page.close)
        page.wait("document.querySelectorAll('#comparison tbody tr').length > 10")
        column = "[...document.querySelectorAll('#comparison tbody tr')].map((row) => row.cells[3].dataset.value)"
        for descending in (True, False):
            page.click("#comparison th", "DINO")
            values = [float(value) for value in page.script(column) if value]
            self.assertEqual(values, sorted(values, reverse=descending))
        page.click("#subjects th", "subject")
        names = page.script("[...document.querySelectorAll('#subjects tbody tr')].map((row) => row.cells[0].textContent)")
        self.assertEqual(names, sorted(names, reverse=True))
        self.assertTrue(page.script("[...document.images].every((image) => image.complete && image.naturalWidth > 0)"))
        folder = os.environ.get("SITTER_SCREENSHOTS")
        if folder:
            page.script("scrollTo(0, 0)")
            Path(folder, "dreambench.png").write_bytes(page.screenshot())


class Pieces(unittest.TestCase):
    def test_rows_of_other_protocols_are_told_apart(self):
        self.assertEqual([published.comparable("B", other) == "" for other in "ABCD?"], [True, True, False, False, False])
        self.assertEqual(published.comparable("C", "C"), "")

    def test_leakage_of_a_run_is_that_of_its_subjects_together(self):
        def unit(dino, pres, untouched):
            return {"dino": dino, "leakage": {"pres": pres, "untouched": untouched}}

        self.assertAlmostEqual(summary.leakage([unit(0.8, 0.5, 0.2), unit(0.41, 0.1, 0.4)]), (0.3 - 0.3) / (0.6 + 0.01))
        self.assertAlmostEqual(summary.leakage([unit(0.8, 0.5, 0.2), {"dino": 0.5, "leakage": None}]), 0.5)
        self.assertIsNone(summary.leakage([unit(0.2, 0.5, 0.2)]))
        self.assertIsNone(summary.leakage([unit(0.2, 0.5, None)]))

    def test_a_thumbnail_is_the_mean_of_its_pixels(self):
        pixels = np.zeros((40, 20, 3), np.uint8)
        pixels[:20] = 200
        small = drawings.smaller(pixels, 4)
        self.assertEqual((small.shape, small[0, 0, 0], small[3, 1, 2]), ((4, 2, 3), 200, 0))
        self.assertIs(drawings.smaller(pixels, 64), pixels)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "small.png"
            path.write_bytes(drawings.png(small))
            handle = drawings.picture(path)
            np.testing.assert_array_equal(drawings.to_array(handle), small)
            self.assertIsNone(drawings.thumbnail(Path(folder) / "no.png", 8))

    def test_a_folder_appears_when_it_is_whole(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pictures" / "01"
            with self.assertRaises(ZeroDivisionError), store.folder(path) as place:
                (place / "0.png").write_bytes(b"x")
                raise ZeroDivisionError
            self.assertEqual(list(path.parent.iterdir()), [])
            with store.folder(path) as place:
                (place / "0.png").write_bytes(b"x")
                with store.folder(path) as other:
                    (other / "0.png").write_bytes(b"x")
            self.assertEqual([p.name for p in path.parent.iterdir()], ["01"])


if __name__ == "__main__":
    unittest.main()
