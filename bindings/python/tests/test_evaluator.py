"""Measuring pictures, with the small networks of the repository's tests."""
import asyncio
import json
import unittest
from pathlib import Path

import numpy as np

import sitter
from support import FOX, PIXELS

GOLDEN = Path(__file__).resolve().parents[3] / "tests" / "golden" / "evaluate"
DOG = FOX[0].parents[1] / "dog" / "1.png"


def golden() -> sitter.Evaluator:
    return sitter.Evaluator.open(dino=GOLDEN / "dino", clip=str(GOLDEN / "clip"))


class Evaluating(unittest.TestCase):
    def test_vectors_are_those_that_pytorch_makes(self):
        evaluator = golden()
        texts = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))["texts"]
        found = evaluator.clip_text([case["text"] for case in texts])
        self.assertEqual(found.dtype, np.float32)
        np.testing.assert_allclose(found, [case["clip"] for case in texts], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(evaluator.clip_text(texts[0]["text"]), found[0])
        self.assertEqual(evaluator.clip_text([]).size, 0)

    def test_one_picture_gives_a_vector_and_several_a_matrix(self):
        evaluator = golden()
        one, several = evaluator.dino(FOX[0]), evaluator.dino([FOX[0], PIXELS, np.stack([PIXELS, PIXELS])])
        self.assertEqual((one.shape, several.shape), ((32,), (4, 32)))
        np.testing.assert_array_equal(several[0], one)
        np.testing.assert_array_equal(several[1], several[3])
        self.assertEqual(evaluator.clip_image(np.stack([PIXELS, PIXELS])).shape, (2, 20))

    def test_scores_are_typed_and_say_what_they_were_made_with(self):
        scores = golden().score(
            [FOX[0], DOG, "no/such.png"], FOX[:2], texts=["a {} fox", "a {} dog", "a {} ghost"], identifier="[V]",
            class_pictures=[DOG], untouched=[FOX[2]],
        )
        self.assertEqual((scores.protocol, scores.pictures, scores.references, scores.texts), ("B", 2, 2, 2))
        self.assertEqual([one.text for one in scores.each], ["a {} fox", "a {} dog"])
        self.assertEqual((scores.each[0].copy, scores.each[0].nearest), (True, 0))
        self.assertAlmostEqual(scores.each[0].dino_max, 1.0, places=5)
        self.assertAlmostEqual(scores.dino, np.mean([one.dino for one in scores.each]))
        self.assertNotEqual(scores.clip_t_class, scores.clip_t_prompt)
        self.assertEqual([(f.role, f.name) for f in scores.failed], [("picture", "no/such.png")])
        self.assertIn("no/such.png", scores.failed[0].message)
        self.assertEqual(scores.real.pairs, 1)
        self.assertEqual((scores.leakage.pictures, scores.leakage.untouched_pictures), (1, 1))
        self.assertRegex(scores.networks["dino"]["files"][0]["sha256"], "^[0-9a-f]{64}$")
        self.assertEqual(json.loads(json.dumps(scores.data))["dino"], scores.dino)
        self.assertIn("protocol B", repr(scores))

    def test_leakage_says_how_far_the_class_has_gone_to_the_subject(self):
        evaluator = golden()
        for drawn_of_the_class, share in ((FOX[0], 1.0), (DOG, 0.0)):
            scores = evaluator.score(FOX[0], FOX[0], class_pictures=[drawn_of_the_class], untouched=[DOG])
            self.assertAlmostEqual(scores.leakage.share, share)
        self.assertIsNone(evaluator.score(FOX[0], FOX[0]).leakage)

    def test_arrays_are_scored_as_the_files_they_came_from(self):
        evaluator = sitter.Evaluator.open(dino=GOLDEN / "dino")
        from PIL import Image

        opened = [Image.open(path) for path in FOX[:2]]
        arrays, files = (evaluator.score(p, r, "a {} fox") for p, r in ((opened[0], opened), (FOX[0], FOX[:2])))
        self.assertEqual(arrays.dino, files.dino)
        self.assertEqual((arrays.each[0].name, files.each[0].name), ("picture 1", str(FOX[0])))
        self.assertIsNone(arrays.clip_t)

    def test_wrong_requests_are_refused(self):
        evaluator = sitter.Evaluator.open(dino=GOLDEN / "dino")
        refused = [
            (dict(pictures=FOX, references=FOX, texts=["one"]), "texts"),
            (dict(pictures=FOX, references=FOX, protocol="E"), "protocol"),
            (dict(pictures=FOX, references=FOX, protocol="C"), "one"),
            (dict(pictures=[], references=FOX), "pictures"),
            (dict(pictures=FOX, references=[]), "references"),
        ]
        for arguments, told in refused:
            with self.subTest(told), self.assertRaisesRegex(sitter.InvalidArgument, told):
                evaluator.score(**arguments)
        with self.assertRaisesRegex(sitter.InvalidArgument, "CLIP"):
            evaluator.clip_text("x")
        with self.assertRaisesRegex(sitter.InvalidArgument, "dino, clip"):
            sitter.Evaluator.open()
        with self.assertRaisesRegex(sitter.NotFound, "such"):
            sitter.Evaluator.open(dino="no/such/folder")
        with self.assertRaises(TypeError):
            evaluator.score(FOX, FOX, texts=3)

    def test_progress_is_told_and_can_stop(self):
        evaluator = sitter.Evaluator.open(dino="fake:steps=5")
        events = []
        evaluator.dino(PIXELS, progress=events.append)
        self.assertEqual({event.stage for event in events}, {"score"})

        def enough(event):
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            evaluator.dino(PIXELS, progress=enough)
        run = sitter.Run()
        run.cancel()
        with self.assertRaises(sitter.Cancelled):
            evaluator.dino(PIXELS, run=run)

    def test_long_calls_can_be_awaited(self):
        async def both():
            evaluator = await sitter.Evaluator.open_async(dino=GOLDEN / "dino")
            return await asyncio.gather(evaluator.score_async(FOX[:2], FOX), evaluator.dino_async(FOX[0]))

        scores, vector = asyncio.run(both())
        self.assertEqual((scores.pictures, vector.shape), (2, (32,)))

    def test_a_closed_evaluator_says_so(self):
        with golden() as evaluator:
            self.assertIn("dino, clip", repr(evaluator))
        with self.assertRaisesRegex(sitter.InvalidState, "closed"):
            evaluator.info


if __name__ == "__main__":
    unittest.main()
