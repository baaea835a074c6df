"""The options of a training as inputs of a node. Their names are the library's; a test compares them with it.

What stays at "as recommended" is not set at all, so that the model and the method decide: that is the real default, which
differs between the models. Subject Info shows the values that a training had.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, TypeVar

RECOMMENDED = "as recommended"
METHODS = (RECOMMENDED, "two_stage", "textual_inversion", "dreambooth", "lora", "arbooth")
# The last ones are Janus-Pro's and Infinity's.
TRAINABLE = (
    "qkv", "attention", "mlp", "all", "lora", "head", "aligner", "self_attention", "cross_attention", "arbooth",
)
ADAPTATION = ("full", "low_rank")
STATES = ("f32", "bf16", "int8")
RECOMPUTE = ("auto", "always", "never")
TEACHERS = ("correct", "reference")


N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Option:
    """`kind` is int, float, flag, choice or text. Numbers below `low` mean "as recommended"."""

    name: str
    kind: str
    tooltip: str
    defaults: str
    low: float = 0
    high: float = 0
    step: float = 1
    choices: tuple[str, ...] = ()

    @property
    def unset(self) -> Any:
        """The value of the widget that leaves the option to the model."""
        if self.kind in ("int", "float"):
            return -1 if self.kind == "int" else -1.0
        return "" if self.kind == "text" else RECOMMENDED

    @property
    def help(self) -> str:
        """The tooltip."""
        sign = "empty" if self.kind == "text" else self.unset if self.kind in ("flag", "choice") else "-1"
        return f"{self.tooltip} {str(sign).capitalize()} = as the model and the method recommend ({self.defaults})."


def _int(name: str, low: int, high: int, tooltip: str, defaults: str) -> Option:
    return Option(name, "int", tooltip, defaults, low, high)


def _float(name: str, low: float, high: float, step: float, tooltip: str, defaults: str) -> Option:
    return Option(name, "float", tooltip, defaults, low, high, step)


def _flag(name: str, tooltip: str, defaults: str) -> Option:
    return Option(name, "flag", tooltip, defaults, choices=(RECOMMENDED, "yes", "no"))


# On Train Subject itself.
STEPS = (
    _int("embedding_steps", 0, 1_000_000, "Steps of the first stage, which learns the word; 0 leaves it out.",
         "7B: 1500; embedded: 20, 160 for textual_inversion"),
    _int("layer_steps", 0, 1_000_000, "Steps of the second stage, which trains layers; 0 leaves it out.",
         "7B: 70, lora 150; embedded: 70, 88 for dreambooth"),
)

# On Training Options.
OPTIONS = (
    _float("embedding_learning_rate", 0, 10, 0.0001, "Learning rate of the word's vectors.", "0.01"),
    _int("embedding_vectors", 1, 64, "Vectors that stand for the identifier.", "1"),
    Option("initial_word", "text", "A word that the vectors start from instead of noise.", "7B: noise; embedded: its look words"),
    _float("layer_learning_rate", 0, 10, 0.000001, "Learning rate of the transformer's weights.",
           "7B: 0.000005, lora 0.0001; embedded: 0.0006, lora 0.001"),
    Option("trainable", "choice", "Which weights of a layer learn in the second stage.", "7B: qkv; embedded: mlp",
           choices=(RECOMMENDED, *TRAINABLE)),
    _int("lora_rank", 1, 1024, "Rank of low-rank changes.", "64; embedded with lora: 16"),
    _int("layer_stride", 1, 1000, "Of the layers only every n-th learns, the first among them.", "1"),
    Option("layers", "text", "The layers that may learn, by number from 0, with commas between them.", "all"),
    _flag("train_embedding_in_layer_stage", "Whether the word goes on learning in the second stage.", "no; dreambooth: yes"),
    _int("batch_size", 1, 256, "Pictures in one step. More need more memory.", "7B: 1; embedded: 2"),
    _int("accumulation", 1, 256, "Passes that a step is split into, to save memory; at most batch_size.", "1"),
    _float("weight_decay", 0, 10, 0.01, "AdamW's decay of the transformer's weights.", "7B: 0.1; embedded: 0"),
    _float("beta1", 0, 0.9999, 0.01, "AdamW's first decay rate.", "0.9"),
    _float("beta2", 0, 0.9999, 0.01, "AdamW's second decay rate.", "0.95"),
    _float("clip_norm", 0, 1_000_000, 0.1, "Gradients are scaled down to this norm; 0 switches it off.", "7B: 4; embedded: 1"),
    _float("z_loss", 0, 1, 0.00001, "Weight of the squared log-normaliser in the loss.", "0.00001"),
    _float("dropout", 0, 0.99, 0.01, "Probability of zeroing outputs of attention and MLP.", "7B: 0.05; embedded: 0"),
    _float("guidance_dropout", 0, 1, 0.01, "How often the second stage learns a picture without its prompt.", "0.1"),
    _int("warmup_steps", 0, 1_000_000, "Steps over which the learning rate rises at the start of each stage.", "0"),
    _int("cooldown_steps", 0, 1_000_000, "Last steps of the second stage, over which its learning rate falls to 0.", "7B: 0; embedded: 49"),
    _flag("per_image_tokens", "Whether each picture gets a vector of its own, dropped at the end, for what is particular to it.",
          "7B: yes, textual_inversion and dreambooth no; embedded: no"),
    _flag("use_class_word", "Whether the class word follows the identifier in the templates.", "yes"),
    Option("templates", "text", "Prompts to learn under, one a line, each with one {} for the subject.",
           "the 27 of Textual Inversion"),
    _int("image_size", 1, 8192, "Side in pixels of the square whose area the pictures are brought to.", "7B: 768; embedded: 128"),
    _flag("random_crop", "Crops at random places instead of the middle.", "no"),
    _flag("flip", "Adds the mirror image of each picture; not for subjects with writing on them.", "no"),
    _int("augment", 0, 10_000, "Varied copies of each picture: zoomed, shifted, cropped anew.", "7B: 0; embedded: 24"),
    _flag("augment_aligned", "Copies are only shifted, by whole patches of the image tokenizer.", "7B: no; embedded: yes"),
    _float("prior_weight", 0, 100, 0.1, "Weight of the loss on pictures of the plain class, so that it is not forgotten.", "7B: 0; embedded: 0.5"),
    _int("prior_count", 1, 10_000, "Class pictures to draw for prior_weight.", "7B: 32; embedded: 8"),
    _int("early_stop", 0, 1_000_000, "Ends the first stage when the mean loss of so many steps no longer falls; 0 never does.", "0"),
    _int("checkpoint_every", 0, 1_000_000,
         "Steps between two checkpoints in output/sitter_checkpoints. A training that was stopped or broke off goes on from the "
         "last one when it is queued again; one that ends removes it. 0 writes none.", "0"),
    # New options come last: saved workflows hold the values in this order.
    _int("sample_every", 0, 1_000_000,
         "Steps between two pictures of the subject that are shown on Train Subject while it is learned. Each takes the time of "
         "drawing a picture, and changes nothing about the result. 0 draws none.", "0"),
    Option("sample_prompt", "text", "What these pictures are to show, the subject by its identifier.", "a photo of a [V] and the class"),
    _flag("keep_gradients", "Whether gradients are kept until their norm is known; no needs less memory and takes longer.", "yes"),
    Option("optimizer_state", "choice", "What the optimizer's means are kept in; bf16 and int8 need less memory.", "f32",
           choices=(RECOMMENDED, *STATES)),
    _flag("master_weights", "Whether what learns is kept in f32 whatever the model runs in; no needs less memory.", "yes"),
    Option("recompute", "choice", "Whether the backward pass computes each layer anew, for less memory, or keeps what it needs.", "auto",
           choices=(RECOMMENDED, *RECOMPUTE)),
    # What came later stands at the end: saved workflows know widgets by their place.
    Option("adaptation", "choice", "How weights learn: every number of them, or two factors of low rank for each matrix.",
           "full; lora: low_rank", choices=(RECOMMENDED, *ADAPTATION)),
    _float("lora_alpha", 0, 10_000, 0.5, "Low-rank changes count this much divided by their rank; 0: once.", "0"),
    Option("optimizer_device", "choice", "Where the optimizer works: on the device of the model, or in the memory of the host.",
           "auto", choices=(RECOMMENDED, "auto", "device", "host")),
    _float("initial_noise", 0, 10, 0.1, "Size of the noise that the vectors start as, beside the model's own words; 0: zero.",
           "1; arbooth: 0"),
    _flag("prior_distillation", "Whether the class is kept by what the untouched model predicts of new pictures of it in each step. "
          "For models that draw scale after scale (Infinity).", "no; arbooth: yes"),
    Option("teacher", "choice", "How the untouched model predicts then: correct, or reference as ARBooth's released code has it.",
           "correct", choices=(RECOMMENDED, *TEACHERS)),
    Option("scale_weights", "text", "What each scale counts in the loss, coarse to fine, with blanks between the numbers; the last one counts "
           "for those behind, too. For models that draw scale after scale.", "all 1; arbooth: 1 1 1 1 1 1 1 1 0.5"),
    _float("self_correction", 0, 1, 0.05, "Up to this share of the bits of a scale is turned over in what later scales see. For models "
           "that draw scale after scale.", "0; Infinity: 0.3"),
    _flag("masked_training", "Whether of pictures that are transparent in places only what shows the subject is learned, its copies on "
          "backgrounds of many colours. Join Image with Alpha gives such pictures.", "yes"),
)

# Set by Train Subject itself, or not at all: no workflow names a file to write, and vectors are no text.
OTHER = ("class_word", "identifier", "seed", "checkpoint_path", "initial_embedding")


def chosen(options: tuple[Option, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """What the user set, as the Python package takes it."""
    found = {}
    for option in options:
        value = _value(option, values.get(option.name, option.unset))
        if value is not None:
            found[option.name] = value
    return found


def _value(option: Option, value: Any) -> Optional[Any]:
    if option.kind in ("int", "float"):
        # Below 0 is "as recommended"; 0 where 1 is the least stays, and the library names the range.
        return None if value is None or value < 0 else value
    if value is None or value == option.unset or not str(value).strip():
        return None
    if option.kind == "flag":
        return value == "yes"
    if option.name == "layers":
        return _numbers(option.name, str(value), int, "0, 2, 4")
    if option.name.endswith("_by_scale") or option.name == "scale_weights":
        return _numbers(option.name, str(value), float, "4, 3, 2.5")
    if option.name == "templates":
        return [line.strip() for line in str(value).splitlines() if line.strip()]
    return str(value).strip()


def _numbers(name: str, text: str, kind: Callable[[str], N], example: str) -> list[N]:
    from .messages import NodeError

    try:
        return [kind(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise NodeError(f"{name}: {text!r} is no list of numbers; write for example {example}.") from None
