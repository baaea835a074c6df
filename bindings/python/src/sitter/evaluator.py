"""Measuring drawn pictures as the papers do: DINO, CLIP-I, CLIP-T, copies, leakage, diversity."""
from __future__ import annotations

import os
from ctypes import POINTER, byref, c_float, c_size_t
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Optional, Sequence, Union

import numpy as np
import numpy.typing as npt

from . import _abi
from ._async import awaitable
from ._library import Handle, call, make, path_utf8, pointers, read_json, texts, utf8
from .errors import InvalidArgument, InvalidState
from .images import ImageLike, pictures
from .options import Options, engine
from .run import Job, Progress, Run

Vector = npt.NDArray[np.float32]
Images = Union[ImageLike, Sequence[ImageLike]]

_ROLES = {
    "pictures": _abi.ROLE_PICTURE,
    "references": _abi.ROLE_REFERENCE,
    "class_pictures": _abi.ROLE_CLASS_PICTURE,
    "untouched": _abi.ROLE_UNTOUCHED,
}


@dataclass(frozen=True)
class Scored:
    """Cosines of one picture; None for what a network that was not opened would say."""

    name: str
    """The file, or "picture 3", counted from 1."""
    text: str
    dino: Optional[float]
    """DINO, to the references: the mean over them."""
    dino_one: Optional[float]
    """To the first reference."""
    dino_max: Optional[float]
    """To the one that is most alike."""
    clip_i: Optional[float]
    """CLIP, to the references, likewise."""
    clip_i_one: Optional[float]
    clip_i_max: Optional[float]
    clip_t: Optional[float]
    """CLIP, to the text that the protocol reads."""
    clip_t_class: Optional[float]
    """To the text without the identifier."""
    clip_t_prompt: Optional[float]
    """To the whole prompt, if the identifier is known."""
    nearest: Optional[int]
    """The reference that is most alike, from 0 among those that could be read."""
    copy: Optional[bool]
    """Whether it is as like a reference as the two references that are most alike, or more."""


@dataclass(frozen=True)
class Leakage:
    """How far the subject has taken over its class."""

    pictures: int
    untouched_pictures: int
    pres: Optional[float]
    """DINO of class pictures to the references: DreamBooth's PRES."""
    untouched: Optional[float]
    """The same for pictures by the model without the subject."""
    share: Optional[float]
    """0: the class is what it was; 1: every member of the class is the subject. Above 0.3 teach less, or with prior
    preservation."""


@dataclass(frozen=True)
class Real:
    """The references among themselves."""

    pairs: int
    dino: Optional[float]
    clip_i: Optional[float]


@dataclass(frozen=True)
class Failed:
    """A picture that could not be read."""

    role: str
    """picture, reference, class_picture or untouched."""
    name: str
    message: str


@dataclass(frozen=True)
class Scores:
    """Scores of one subject: means over its pictures, and `each` picture's own. See `Scored` for what the numbers are."""

    protocol: str
    rules: "dict[str, Any]"
    """What the protocol looks at, compares and averages, in words."""
    pictures: int
    references: int
    texts: int
    """Texts that differ."""
    dino: Optional[float]
    dino_one: Optional[float]
    dino_max: Optional[float]
    clip_i: Optional[float]
    clip_i_one: Optional[float]
    clip_i_max: Optional[float]
    clip_t: Optional[float]
    clip_t_class: Optional[float]
    clip_t_prompt: Optional[float]
    copies: Optional[int]
    copy_threshold: Optional[float]
    real: Optional[Real]
    """What good pictures come near and only copies exceed. Over DreamBooth's folders DINO is 0.774 and CLIP-I 0.885."""
    leakage: Optional[Leakage]
    diversity: Optional[float]
    """LPIPS between pictures of the same text: DreamBooth's DIV."""
    each: "tuple[Scored, ...]"
    failed: "tuple[Failed, ...]"
    networks: "dict[str, Any]"
    """Which files the networks were, with their SHA-256."""
    data: "dict[str, Any]"
    """All of this as it can be written to JSON."""

    @classmethod
    def _of(cls, found: "dict[str, Any]") -> "Scores":
        parts = {
            "real": found["real"] and _made(Real, found["real"]),
            "leakage": found["leakage"] and _made(Leakage, found["leakage"]),
            "each": tuple(_made(Scored, one) for one in found["each"]),
            "failed": tuple(_made(Failed, one) for one in found["failed"]),
            "data": found,
        }
        made: Scores = _made(cls, {**found, **parts})
        return made

    def __repr__(self) -> str:
        numbers = {"DINO": self.dino, "CLIP-I": self.clip_i, "CLIP-T": self.clip_t}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items() if value is not None)
        return f"<sitter.Scores {shown or 'of nothing'}; protocol {self.protocol}, {self.pictures} pictures>"


def _made(kind: Any, found: "dict[str, Any]") -> Any:
    """What a newer library says beyond the fields is left out."""
    return kind(**{field.name: found[field.name] for field in fields(kind)})


class Evaluator:
    """Networks that measure pictures. Open one with `Evaluator.open`. It never changes; several threads may use it at once."""

    def __init__(self, handle: Handle) -> None:
        self._open: Optional[Handle] = handle

    @classmethod
    def open(
        cls,
        dino: "str | os.PathLike[str] | None" = None,
        clip: "str | os.PathLike[str] | None" = None,
        lpips: "str | os.PathLike[str] | None" = None,
        progress: Progress = None,
        run: Optional[Run] = None,
        threads: int = 0,
        max_jobs: int = 1,
    ) -> "Evaluator":
        """Opens networks from their published files, at least one; they work on the CPU.

        dino: the folder of facebook/dino-vits16, or the authors' .pth file. clip: the folder of openai/clip-vit-base-patch32.
        lpips: a folder with torchvision's AlexNet and the alex.pth of LPIPS. threads and max_jobs: as in `Model.open`.
        """
        own = engine(threads, max_jobs)
        options = Options("evaluator")
        for name, path in (("dino", dino), ("clip", clip), ("lpips", lpips)):
            if path is not None:
                options.set(name, os.fspath(path))
        with Job(run, progress) as job:
            return cls(job.perform(lambda r: make("evaluator", "sitter_evaluator_open", own, options.handle, r)))

    @classmethod
    async def open_async(
        cls,
        dino: "str | os.PathLike[str] | None" = None,
        clip: "str | os.PathLike[str] | None" = None,
        lpips: "str | os.PathLike[str] | None" = None,
        progress: Progress = None,
        run: Optional[Run] = None,
        threads: int = 0,
        max_jobs: int = 1,
    ) -> "Evaluator":
        """`open` for asyncio. Cancelling the task that awaits it stops the work and waits for its end; `progress` is called by
        the event loop."""
        return await awaitable(cls.open)(dino, clip, lpips, progress, run, threads, max_jobs)

    def close(self) -> None:
        """Lets go of the networks. A call in another thread goes on."""
        self._open = None

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Any, trace: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._open is None:
            return "<sitter.Evaluator, closed>"
        info = self.info
        return f"<sitter.Evaluator of {', '.join(name for name in ('dino', 'clip', 'lpips') if info[name])}>"

    @property
    def _handle(self) -> Handle:
        if self._open is None:
            raise InvalidState("the evaluator is closed", _abi.E_INVALID_STATE)
        return self._open

    @property
    def info(self) -> "dict[str, Any]":
        """dino and clip, each None or size, side, patch, layers and files with their SHA-256; lpips, None or its files."""
        found: dict[str, Any] = read_json("sitter_evaluator_info_json", self._handle)
        return found

    def dino(self, images: Images, progress: Progress = None, run: Optional[Run] = None) -> Vector:
        """DINO's vector of a picture, as the network gives it (not of length 1): float32 of [size]; of a list or a batch of
        pictures [pictures, size]."""
        return self._of_images("sitter_evaluator_dino", images, progress, run)

    def clip_image(self, images: Images, progress: Progress = None, run: Optional[Run] = None) -> Vector:
        """CLIP's vector of a picture or pictures, as `dino`."""
        return self._of_images("sitter_evaluator_clip_image", images, progress, run)

    def clip_text(
        self, text: "str | Sequence[str]", progress: Progress = None, run: Optional[Run] = None
    ) -> Vector:
        """CLIP's vector of a text or texts, as `dino`."""
        given = [utf8(one, "text") for one in ([text] if isinstance(text, str) else text)]
        found = self._vectors("sitter_evaluator_clip_text", texts(given), len(given), progress, run)
        return found[0] if isinstance(text, str) else found

    def score(
        self,
        pictures: Images,
        references: Images,
        texts: "str | Sequence[str]" = "",
        protocol: str = "B",
        identifier: Optional[str] = None,
        class_pictures: Images = (),
        untouched: Images = (),
        progress: Progress = None,
        run: Optional[Run] = None,
    ) -> Scores:
        """Measures pictures of one subject against those that it was taught with. Files are read when their turn comes; those
        that cannot be read are listed in the result, and the others are measured.

        texts: what the pictures were to show, with {} in the place of the identifier ("a {} dog in the snow"): one for each, or
        one for all. protocol: "A" (DreamBooth), "B" (arXiv 2504.13162), "C" (Kosmos-G, OmniGen: one reference) or "D" (ARBooth,
        ViCo). identifier: the subject's word, for the score of whole prompts. class_pictures: drawn with the subject of prompts
        that name only its class, and untouched: the same by the model without it; they tell how far the subject leaked.
        """
        evaluator = self._handle
        evaluation = make("evaluation", "sitter_evaluation_new")
        call("sitter_evaluation_set_protocol", evaluation, utf8(protocol, "protocol"))
        if identifier is not None:
            call("sitter_evaluation_set_identifier", evaluation, utf8(identifier, "identifier"))
        given = _sources(pictures)
        words = [texts] * len(given) if isinstance(texts, str) else list(texts)
        if len(words) != len(given):
            raise InvalidArgument(f"texts: {len(words)} for {len(given)} pictures; one for each, or one alone")
        groups = {"references": references, "class_pictures": class_pictures, "untouched": untouched}
        items = [("pictures", source, word) for source, word in zip(given, words)]
        items += [(name, source, "") for name, group in groups.items() for source in _sources(group)]
        for name, source, word in items:
            kind = "file" if isinstance(source, bytes) else "image"
            call(f"sitter_evaluation_add_{kind}", evaluation, _ROLES[name], source, utf8(word, "texts"))
        with Job(run, progress) as job:
            scores = job.perform(lambda r: make("scores", "sitter_evaluator_score", evaluator, evaluation, r))
        return Scores._of(read_json("sitter_scores_json", scores))

    dino_async = awaitable(dino)
    clip_image_async = awaitable(clip_image)
    clip_text_async = awaitable(clip_text)
    score_async = awaitable(score)

    def _of_images(self, name: str, images: Images, progress: Progress, run: Optional[Run]) -> Vector:
        several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
        given = pictures(images)
        found = self._vectors(name, pointers(given), len(given), progress, run)
        return found if several else found[0]

    def _vectors(self, name: str, items: Any, count: int, progress: Progress, run: Optional[Run]) -> Vector:
        evaluator, needed = self._handle, c_size_t()
        call(name, evaluator, items, count, None, None, 0, byref(needed))
        found = np.empty(needed.value, np.float32)
        # An empty array has no address.
        room = found if needed.value else np.empty(1, np.float32)
        buffer = room.ctypes.data_as(POINTER(c_float))
        with Job(run, progress) as job:
            job.perform(lambda r: call(name, evaluator, items, count, r, buffer, needed.value, byref(needed)))
        return found.reshape(count, -1) if count else found.reshape(0, 0)


def _sources(images: Images) -> "list[bytes | Handle]":
    """Paths of files, handles of other pictures."""
    if isinstance(images, (str, os.PathLike)):
        return [path_utf8(images, "image")]
    if isinstance(images, (list, tuple)):
        return [source for image in images for source in _sources(image)]
    found: list[bytes | Handle] = []
    found.extend(pictures(images))
    return found
