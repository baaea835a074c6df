"""Train Subject and its options."""
from __future__ import annotations

import hashlib
import json
import logging
from typing import Any, Optional

from comfy_api.v0_0_2 import io

from . import fields, host, memory, options, pictures, preview
from .options import RECOMMENDED
from .watch import Watch
from .wires import library

log = logging.getLogger("sitter")

DISCARD, KEEP = "discard", "keep"


class TrainSubject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterTrainSubject",
            display_name="Sitter: Train Subject",
            category=fields.CATEGORY,
            description="Teaches a model one subject from three to five pictures. The model stays as it is; what was learned is the "
            "output. The same inputs are not trained again.",
            is_input_list=True,
            inputs=[
                fields.model(),
                io.Image.Input("images", tooltip="Pictures of the subject: a batch, or a list with pictures of any sizes. Of pictures that "
                               "are transparent in places only what shows the subject is learned."),
                io.String.Input("class_word", default="", tooltip="What the subject is, in a word that the model knows: dog."),
                io.String.Input(
                    "identifier", default="[V]",
                    tooltip="The new word that stands for the subject in prompts. No blanks. Subjects drawn together need different ones.",
                ),
                io.Combo.Input(
                    "method", options=list(options.METHODS), default=options.METHODS[0],
                    tooltip="As recommended: two_stage, for Infinity arbooth. two_stage: first the word, then layers (the paper's). "
                    "textual_inversion: the word alone. dreambooth: both together. lora: as two_stage, with low-rank changes, for little "
                    "memory and small files. arbooth: word, cross-attention and MLP together, the class kept by distillation.",
                ),
                *map(fields.widget, options.STEPS),
                fields.seed("The same seed, pictures and options give the same subject.", control=False),
                io.Combo.Input(
                    "on_stop", options=[DISCARD, KEEP], default=DISCARD,
                    tooltip="What Stop does during the training. discard: nothing is kept. keep: the training ends with what was "
                    "learned so far; press Queue again, and the rest of the workflow goes on with that subject.",
                ),
                io.String.Input(
                    "captions", optional=True, force_input=True,
                    tooltip="Prompts to learn the pictures under, with the identifier in them: one for each picture, or one for all. "
                    "Without them the templates are used.",
                ),
                fields.TrainOptions.Input("options", optional=True, tooltip="From Sitter: Training Options."),
            ],
            outputs=[
                fields.Subject.Output("subject", display_name="subject", tooltip="For Sample, Score, Save, Info and Loss Curve."),
                io.LossMap.Output("loss_map", display_name="loss_map", tooltip="The losses, for core's Plot Loss Graph."),
                io.Int.Output("steps", display_name="steps", tooltip="Steps that were made, of both stages together."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model: list[Any], images: list[Any], class_word: list[str], identifier: list[str], method: list[str],
        embedding_steps: list[int], layer_steps: list[int], seed: list[int], on_stop: list[str],
        captions: Optional[list[str]] = None, options: Optional[list[dict[str, Any]]] = None,
    ) -> io.NodeOutput:
        node, wire = host.Node(cls.hidden.unique_id), model[0]
        references = pictures.split(images)
        references, texts = pictures.in_order(references, pictures.captions_for(len(references), captions))
        settings = _settings(options, embedding_steps=embedding_steps[0], layer_steps=layer_steps[0])
        given = dict(
            class_word=class_word[0].strip(), identifier=identifier[0].strip(), captions=texts, seed=seed[0],
            method=None if method[0] == RECOMMENDED else method[0],
        )
        run = library().Run()
        watch = Watch(node, run.finish_early if on_stop[0] == KEEP else None)

        def work(watch: Watch) -> Any:
            opened = memory.opened(wire, watch, alone=True)
            if settings.get("checkpoint_every"):
                settings["checkpoint_path"] = host.checkpoint(_key(wire, references, {**given, **settings}))
            with preview.Learning(opened, run) as learning:
                watch.picture = learning
                subject = opened.train(references, progress=watch, run=run, **given, **settings)
                learning.complete()
                watch.once_more()
            return subject

        subject = node.watched(work, watch)
        losses = [loss for _, _, loss in subject.losses]
        ended = "stopped early, kept" if watch.kept else "learned"
        text = f"{ended} after {len(losses)} steps" + (f", loss {losses[-1]:.3f}" if losses else "")
        log.info("Sitter: %s %s %s", given["identifier"], given["class_word"], text)
        node.say(text)
        return io.NodeOutput(subject, {"loss": loss_map(losses)}, len(losses))


class TrainingOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterTrainingOptions",
            display_name="Sitter: Training Options",
            category=fields.CATEGORY,
            description="What is seldom changed about a training. Everything starts as the model and the method recommend; Subject "
            "Info shows the values that a training had.",
            inputs=[fields.widget(option) for option in options.OPTIONS],
            outputs=[fields.TrainOptions.Output("options", display_name="options", tooltip="For Sitter: Train Subject.")],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        return io.NodeOutput(options.chosen(options.OPTIONS, values))


def loss_map(losses: list[float]) -> list[float]:
    """As core's Plot Loss Graph can draw it: it divides by the number of steps and by the span of the losses."""
    values = (losses or [0.0]) * 2 if len(losses) < 2 else list(losses)
    if max(values) == min(values):
        values[-1] += 1e-6
    return values


def _settings(given: Optional[list[dict[str, Any]]], **steps: int) -> dict[str, Any]:
    advanced = (given or [None])[0] or {}
    return {**advanced, **options.chosen(options.STEPS, steps)}


def _key(wire: Any, references: list[Any], settings: dict[str, Any]) -> str:
    """Names the checkpoint of just this training."""
    told = json.dumps([wire.info.get("fingerprint"), [pictures.digest(one) for one in references], settings], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:24]
