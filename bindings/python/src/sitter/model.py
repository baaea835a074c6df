"""Pretrained models and their four verbs."""
from __future__ import annotations

import os
from ctypes import byref, c_double, c_void_p
from types import TracebackType
from typing import TYPE_CHECKING, Any, Iterable, Optional, Sequence, Union

import numpy.typing as npt

from . import _abi
from ._async import awaitable
from ._library import Handle, call, make, path_utf8, pointers, read_json, utf8
from ._options import Decoding, Dtype, Method, TextEncoder, TrainOptions
from .errors import InvalidArgument, InvalidState
from .images import ImageLike, Pixels, picture, pictures, to_array
from .options import Options, engine, explaining, whole
from .run import Job, Progress, Run
from .subject import Subject
from .tokens import Sample, Tokens, as_tokens, decode

if TYPE_CHECKING:
    from typing_extensions import Unpack

Subjects = Union[Subject, Iterable[Subject], None]


class Model:
    """An opened model. Open one with `Model.open`. It never changes; several threads may use it at once.

    Its memory is given back when nothing uses it any more, or by `close` or at the end of a `with` block.
    """

    def __init__(self, handle: Handle) -> None:
        self._open: Optional[Handle] = handle

    @classmethod
    def open(
        cls,
        path: "str | os.PathLike[str]",
        device: str = "auto",
        dtype: Dtype = "auto",
        progress: Progress = None,
        run: Optional[Run] = None,
        threads: int = 0,
        max_jobs: int = 1,
        keep_quantised: bool = True,
        text_encoder: TextEncoder = "auto",
    ) -> "Model":
        """Opens a model folder in Hugging Face layout, or "embedded:" or "embedded:infinity", the small models inside the library.

        device: "auto", "cpu", "cuda" or "cuda:N". dtype: "auto", "f32", "bf16", "q8_0" or "q4_k". threads: of each call, 0 for
        one per core. max_jobs: calls that may work at the same time; others wait for them. keep_quantised: whether weights in
        q8_0 or q4_k are kept in a file of the model's folder, which makes the next opening quick. text_encoder: "keep" in
        memory the one that is a network of its own (Infinity's), or "unload" it when it has read the texts of a call; "auto" does
        what memory allows.
        """
        own = engine(threads, max_jobs)
        options = Options("model")
        options.update(device=device, dtype=dtype, keep_quantised=keep_quantised, text_encoder=text_encoder)
        name = path_utf8(path)
        with Job(run, progress) as job:
            return cls(job.perform(lambda r: make("model", "sitter_model_open", own, name, options.handle, r)))

    @classmethod
    async def open_async(
        cls,
        path: "str | os.PathLike[str]",
        device: str = "auto",
        dtype: Dtype = "auto",
        progress: Progress = None,
        run: Optional[Run] = None,
        threads: int = 0,
        max_jobs: int = 1,
        keep_quantised: bool = True,
        text_encoder: TextEncoder = "auto",
    ) -> "Model":
        """`open` for asyncio. Cancelling the task that awaits it stops the work and waits for its end; `progress` is called by
        the event loop."""
        opening = awaitable(cls.open)
        return await opening(path, device, dtype, progress, run, threads, max_jobs, keep_quantised, text_encoder)

    def close(self) -> None:
        """Lets go of the model; what was drawn with it stays usable. A call in another thread goes on."""
        self._open = None

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Any, trace: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._open is None:
            return "<sitter.Model, closed>"
        info = self.info
        return f"<sitter.Model {info.get('name')} ({info.get('family')})>"

    @property
    def _handle(self) -> Handle:
        if self._open is None:
            raise InvalidState("the model is closed", _abi.E_INVALID_STATE)
        return self._open

    @property
    def info(self) -> dict[str, Any]:
        """family, name, fingerprint, parameters, vocabulary, codebook, grid_unit_px, device, dtype, can_decode,
        sample_defaults, and licence, the terms of the family's published weights, where they are known."""
        found: dict[str, Any] = read_json("sitter_model_info_json", self._handle)
        return found

    def sample_options(self) -> dict[str, Any]:
        """What `sample` takes and this model recommends."""
        return Options("sample", self._handle).as_dict()

    def train_options(self, method: Optional[Method] = None) -> dict[str, Any]:
        """What `train` takes and this model recommends for a method, by default its family's own."""
        return Options("train", self._handle, None if method is None else utf8(method, "method")).as_dict()

    def encode(
        self, image: ImageLike, size: Optional[int] = None, progress: Progress = None, run: Optional[Run] = None
    ) -> Tokens:
        """The tokens of a picture.

        size: side in pixels of the square whose area the picture is brought to, as in training. Without it a picture of the
        model's own size or smaller, with sides that are multiples of `grid_unit_px`, is taken as it is; others are fitted.
        """
        with Job(run, progress) as job:
            return self._encode(picture(image), size, job)

    def _encode(self, image: Handle, size: Optional[int], job: Job) -> Tokens:
        model, target = self._handle, 0 if size is None else whole(size, 32, "size")
        return Tokens._of(job.perform(lambda r: make("tokens", "sitter_tokens_encode", model, image, target, r)))

    def decode(
        self, tokens: "Tokens | npt.ArrayLike", progress: Progress = None, run: Optional[Run] = None
    ) -> Pixels:
        """The picture of tokens, or of a grid of whole numbers: uint8 of [height, width, 3]."""
        return to_array(decode(self._handle, as_tokens(tokens), progress, run))

    def score(
        self,
        prompt: str,
        images: "ImageLike | Tokens | Sequence[ImageLike | Tokens]",
        subjects: Subjects = (),
        progress: Progress = None,
        run: Optional[Run] = None,
    ) -> Any:
        """How surprising the model finds a picture under a prompt: mean nats per labelled token; lower is likelier.

        A float for one picture, a list of floats for a list or a batch of pictures.
        """
        model, text, learned = self._handle, utf8(prompt, "prompt"), _subjects(subjects)
        several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
        with Job(run, progress) as job:
            grids: list[Tokens] = []
            for image in images if isinstance(images, (list, tuple)) else [images]:
                if isinstance(image, Tokens):
                    grids.append(image)
                else:
                    grids += [self._encode(handle, None, job) for handle in pictures(image)]
            scores = (c_double * len(grids))()
            given = [grid._handle for grid in grids]
            job.perform(
                lambda r: call(
                    "sitter_tokens_score", model, text, pointers(learned), len(learned), pointers(given), len(given), r, scores
                )
            )
        return list(scores) if several else scores[0]

    def sample(
        self,
        prompt: str,
        width: Optional[int] = None,
        height: Optional[int] = None,
        count: int = 1,
        guidance: Optional[float] = None,
        top_k: Optional[int] = None,
        temperature: Optional[float] = None,
        seed: int = 0,
        decoding: Optional[Decoding] = None,
        window: Optional[int] = None,
        subjects: Subjects = (),
        progress: Progress = None,
        run: Optional[Run] = None,
        guidance_by_scale: Optional[Sequence[float]] = None,
        temperature_by_scale: Optional[Sequence[float]] = None,
        top_p: Optional[float] = None,
    ) -> list[Sample]:
        """Draws `count` pictures of a prompt, 1 to 256, in one batch. The prompt names a subject by its identifier.

        What is None is as the model recommends, see `sample_options`. The same seed gives the same pictures.
        decoding: "sequential", "speculative" (the same pictures in fewer passes) or "speculative_distribution" (others, in
        still fewer). window: places that a speculative pass verifies, 2 to 256; 0 leaves it to the library.
        Of models that draw scale after scale (Infinity), which know none of these nor top_k: guidance_by_scale,
        temperature_by_scale: a number for each scale, coarse to fine; the last one counts for those behind. top_p: the less
        likely value of a bit is never drawn if its probability is at most 1 less this.
        """
        model, text, learned = self._handle, utf8(prompt, "prompt"), _subjects(subjects)
        options = Options("sample", model)
        options.update(width=width, height=height, guidance=guidance, top_k=top_k, temperature=temperature, seed=seed)
        options.update(decoding=decoding, window=window, top_p=top_p)
        options.update(guidance_by_scale=guidance_by_scale, temperature_by_scale=temperature_by_scale)
        room = whole(count, 32, "count", range(1, 257))
        out = (c_void_p * room)()

        def work(r: Handle) -> list[Handle]:
            given = pointers(learned)
            call("sitter_tokens_sample", model, text, given, len(learned), options.handle, r, out, room)
            return [Handle("tokens", c_void_p(pointer)) for pointer in out]

        with Job(run, progress) as job:
            return [Sample(model, Tokens._of(handle)) for handle in job.perform(work)]

    @explaining("train")
    def train(
        self,
        images: "ImageLike | Sequence[ImageLike]",
        class_word: Optional[str],
        identifier: str = "[V]",
        captions: "str | Sequence[str] | None" = None,
        method: Optional[Method] = None,
        seed: int = 0,
        progress: Progress = None,
        run: Optional[Run] = None,
        **options: Unpack[TrainOptions],
    ) -> Subject:
        """Teaches the model a subject from a few pictures, three to five as a rule; the model stays as it is.

        class_word: what the subject is: "dog". identifier: the word that stands for it in prompts.
        captions: a prompt for each picture, with the identifier in it; one alone is for all. Without, templates are used.
        method: "two_stage", "textual_inversion", "dreambooth", "lora", or "arbooth" for models that draw scale after scale; by
            default "two_stage", for Infinity "arbooth".
        seed: the same seed, pictures and options give the same subject.
        options: any of these, by default as `train_options(method)` has them; None is none for those that are texts or lists.
        """
        model = self._handle
        chosen = Options("train", model, None if method is None else utf8(method, "method"))
        chosen.update(class_word=class_word, identifier=identifier, seed=seed)
        for name, value in options.items():
            chosen.set(name, value)
        given = pictures(images)
        words = [captions] * len(given) if isinstance(captions, str) else list(captions or [])
        if words and len(words) != len(given):
            raise InvalidArgument(f"captions: {len(words)} for {len(given)} pictures; one for each, or one alone, or none")
        dataset = make("dataset", "sitter_dataset_new")
        for i, image in enumerate(given):
            call("sitter_dataset_add", dataset, image, utf8(words[i], "captions") if words else None)
        with Job(run, progress) as job:
            return Subject(
                job.perform(lambda r: make("subject", "sitter_subject_train", model, dataset, chosen.handle, r))
            )

    encode_async = awaitable(encode)
    decode_async = awaitable(decode)
    score_async = awaitable(score)
    sample_async = awaitable(sample)
    train_async = awaitable(train)


def _subjects(subjects: Subjects) -> list[Handle]:
    """None is none."""
    try:
        given = [subjects] if isinstance(subjects, Subject) else list(() if subjects is None else subjects)
    except TypeError:
        raise TypeError(f"subjects must be sitter.Subject, one or several, not {type(subjects).__name__}") from None
    for subject in given:
        if not isinstance(subject, Subject):
            raise TypeError(f"subjects must be sitter.Subject, not {type(subject).__name__}")
    return [subject._handle for subject in given]
