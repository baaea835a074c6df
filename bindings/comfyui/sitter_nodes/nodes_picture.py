"""Example Pictures, Sample, Decode Tokens, Encode Picture, Score Picture."""
from __future__ import annotations

from typing import Any, Optional

from comfy_api.v0_0_2 import io, ui

from . import fields, host, memory, options, pictures, preview
from .watch import Watch
from .wires import ModelWire, TokensWire, library, subjects_of

# Of Sample; as in `options`, below 0 is not set.
DRAWING = (
    options.Option("width", "int", "Width in pixels, a multiple of the model's grid unit.", "7B: 768; embedded: 128", 0, 8192),
    options.Option("height", "int", "Height in pixels, a multiple of the model's grid unit.", "7B: 768; embedded: 128", 0, 8192),
    options.Option("guidance", "float", "How strongly the picture follows the prompt; 1 switches guidance off and halves the time.",
                   "7B: 4; embedded: 2", 0, 100, 0.1),
    options.Option("top_k", "int", "Only so many of the likeliest codes can be drawn; 0 allows all.", "7B: 2000; embedded: 100",
                   0, 1_000_000),
    options.Option("temperature", "float", "Above 0; smaller is safer and duller.", "7B: 1; embedded: 0.6", 0, 10, 0.05),
    # New options come last: saved workflows hold the values in this order.
    options.Option("guidance_by_scale", "text", "Infinity only: guidance of each scale, coarse to fine, with commas between; the last "
                   "one counts for those behind.", "none"),
    options.Option("temperature_by_scale", "text", "Infinity only: temperature of each scale, coarse to fine, with commas between; the "
                   "last one counts for those behind.", "none"),
    options.Option("top_p", "float", "Infinity only: the less likely value of a bit is never drawn if its probability is at most 1 "
                   "less this; 1 allows all.", "Infinity: 0.97", 0, 1, 0.01),
)

# The nodes draw code by code: a batch of pictures is done sooner so, unless a large GPU has nothing else to do.
NOT_OFFERED = ("decoding", "window")


class ExamplePictures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterExamplePictures",
            display_name="Sitter: Example Pictures",
            category=fields.CATEGORY,
            description="Four bundled pictures of a subject, cut out, to try everything without files of your own.",
            inputs=[io.Combo.Input("example", options=list(pictures.EXAMPLES), default=pictures.EXAMPLES[0], tooltip="Which subject.")],
            outputs=[
                io.Image.Output("images", display_name="images", tooltip="Four pictures of 128x128, transparent around the subject."),
                io.String.Output("class_word", display_name="class_word", tooltip="What the subject is, for Train Subject."),
            ],
        )

    @classmethod
    def execute(cls, example: str) -> io.NodeOutput:
        images = pictures.batch(pictures.examples(example))
        return io.NodeOutput(images, example, ui=ui.PreviewImage(images, cls=cls))


class Sample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterSample",
            display_name="Sitter: Sample",
            category=fields.CATEGORY,
            description="Draws pictures of a prompt, with any number of learned subjects in it.",
            inputs=[
                fields.model(),
                fields.prompt("What to draw. A subject is named by its identifier and class: a photo of a [V] dog in the snow.",
                              "a photo of a [V] fox in the snow"),
                fields.seed("The same seed draws the same pictures.", control=True),
                io.Int.Input("count", default=1, min=1, max=256, tooltip="Pictures in one batch. More need more memory."),
                *map(fields.widget, DRAWING),
                *fields.subjects("A learned subject that the prompt names by its identifier."),
            ],
            outputs=[
                io.Image.Output("images", display_name="images", tooltip="The pictures, for any node that takes images."),
                fields.Tokens.Output("tokens", display_name="tokens", tooltip="The image tokens of the pictures."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model: ModelWire, prompt: str, seed: int, count: int, subject: Any = None, subject_2: Any = None,
        subject_3: Any = None, subject_4: Any = None, **drawing: Any,
    ) -> io.NodeOutput:
        node, learned = host.Node(cls.hidden.unique_id), subjects_of(subject, subject_2, subject_3, subject_4)
        missing = [one.info["identifier"] for one in learned if one.info["identifier"] not in prompt]

        def work(watch: Watch) -> tuple[TokensWire, list[Any]]:
            opened = memory.opened(model, watch)
            chosen, run = options.chosen(DRAWING, drawing), library().Run()
            with preview.Growing(opened, run) as watch.picture:
                drawn = opened.sample(prompt, count=count, seed=seed, subjects=learned, progress=watch, run=run, **chosen)
            watch.picture = None
            tokens = TokensWire(tuple(one.tokens for one in drawn), model.info.get("fingerprint", ""))
            decoded = _decoded(opened, tokens, watch)
            # What grew is shown whole in the end.
            watch.picture = lambda *_: preview.still(decoded[0])
            watch.once_more()
            return tokens, decoded

        tokens, images = node.watched(work)
        node.say(f"the prompt does not name {', '.join(missing)}" if missing else f"{count} drawn")
        return io.NodeOutput(pictures.batch(images), tokens)


class DecodeTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterDecodeTokens",
            display_name="Sitter: Decode Tokens",
            category=fields.CATEGORY,
            description="Turns image tokens into pictures.",
            inputs=[fields.model(), fields.Tokens.Input("tokens", tooltip="From Encode Picture or Sample.")],
            outputs=[io.Image.Output("images", display_name="images", tooltip="The pictures.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: ModelWire, tokens: TokensWire) -> io.NodeOutput:
        def work(watch: Watch) -> list[Any]:
            opened = memory.opened(model, watch)
            tokens.check(model)
            return _decoded(opened, tokens, watch)

        return io.NodeOutput(pictures.batch(host.Node(cls.hidden.unique_id).watched(work, field="tokens")))


class EncodePicture(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterEncodePicture",
            display_name="Sitter: Encode Picture",
            category=fields.CATEGORY,
            description="Turns pictures into image tokens. Decoded again they show what the model's tokenizer can see at all.",
            inputs=[
                fields.model(),
                io.Image.Input("images", tooltip="One picture or a batch; of a list, each batch becomes tokens of its own."),
                io.Int.Input(
                    "size", default=0, min=0, max=8192,
                    tooltip="Side in pixels of the square whose area the pictures are brought to, as in training. 0 takes pictures "
                    "that the model can take as they are, and fits others to its own size.",
                ),
            ],
            outputs=[fields.Tokens.Output("tokens", display_name="tokens", tooltip="For Decode Tokens.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: ModelWire, images: Any, size: int) -> io.NodeOutput:
        given = pictures.split(images)

        def work(watch: Watch) -> TokensWire:
            opened = memory.opened(model, watch)
            tokens = tuple(opened.encode(one, size=size or None, progress=watch) for one in given)
            return TokensWire(tokens, model.info.get("fingerprint", ""))

        return io.NodeOutput(host.Node(cls.hidden.unique_id).watched(work))


class ScorePicture(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterScorePicture",
            display_name="Sitter: Score Picture",
            category=fields.CATEGORY,
            description="How surprising the model finds pictures under a prompt, in nats per token; lower is likelier. New pictures "
            "of a subject, scored with and without it, tell how well it was learned.",
            is_output_node=True,
            inputs=[
                fields.model(),
                io.Image.Input("images", tooltip="One picture or a batch."),
                fields.prompt("The prompt that the pictures are held against.", "a photo of a [V] fox"),
                *fields.subjects("A learned subject that the prompt names by its identifier."),
            ],
            outputs=[
                io.Float.Output("nats", display_name="nats", tooltip="The mean over the pictures."),
                io.String.Output("text", display_name="text", tooltip="Each picture's score."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model: ModelWire, images: Any, prompt: str, subject: Any = None, subject_2: Any = None, subject_3: Any = None,
        subject_4: Any = None,
    ) -> io.NodeOutput:
        node, given = host.Node(cls.hidden.unique_id), pictures.split(images)
        learned = subjects_of(subject, subject_2, subject_3, subject_4)
        scores = node.watched(
            lambda watch: memory.opened(model, watch).score(prompt, given, subjects=learned, progress=watch)
        )
        mean = sum(scores) / len(scores)
        text = f"{mean:.3f} nats" + (f" ({', '.join(f'{one:.3f}' for one in scores)})" if len(scores) > 1 else "")
        node.say(text)
        return io.NodeOutput(mean, text, ui=ui.PreviewText(text))


def _decoded(model: Any, tokens: TokensWire, watch: Optional[Watch]) -> list[Any]:
    return [model.decode(one, progress=watch) for one in tokens.tokens]
