"""The options of a run, each described once: `Request`. Recipes follow from it in `recipe_settings.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from zoo.base.explain import shown
from zoo.base.structs import Struct
from zoo.catalogue.vary import inline
from zoo.data.batches.mode import DataMode
from zoo.errors import InputError

OnInterrupt = Literal["auto", "stop", "raise"]
"""What Ctrl-C does: end the run between two steps and save it; raise KeyboardInterrupt; auto: stop if interactive."""

HowToCompile = Literal["auto", "off", "graph", "default", "max"]


AUTO = "auto"
"""In the place of a batch size: see `zoo.train.batch_that_fits`."""


class Option(NamedTuple):
    """The description of a field of `Request` beside its type: the only place that describes an option of a run.

    Attributes:
        help: one line for `--help`. metavar: the placeholder of the value in the help.
        flag: the name on the command line, if it differs from the field's.
        least: the smallest allowed number.
        recipe: whether it overrides the recipe's key of the same name.
        resume: whether it may change when an unfinished run is resumed.
        repeat: whether it may change when a recorded run is repeated.
        sweep, reproduce: whether that command has the option too.
        folder: whether the value is a folder.
        words: those allowed; () for any. They follow from the field's type, see `options`.
    """

    help: str
    metavar: str | None = None
    flag: str = ""
    least: int | None = None
    recipe: bool = False
    resume: bool = False
    repeat: bool = False
    sweep: bool = False
    reproduce: bool = False
    folder: bool = False
    words: tuple[str, ...] = ()


class Request(Struct, kw_only=True):
    """The options of a run; None leaves a choice to the recipe, the model or the machine.

    Each field is described by its `Option`, from which follow the command line, the options that may change in a
    resumed or repeated run, and the options of `zoo sweep` and `zoo reproduce`.
    """

    model: str
    dataset: Annotated[
        str | None,
        Option(
            "Dataset: a name in `zoo datasets`, folder:PATH, csv:FILE, jsonl:FILE, parquet:PATH, wds:PATTERN or "
            "hf:OWNER/NAME; default: the model's own.",
            "SPEC",
            sweep=True,
        ),
    ] = None
    data_dir: Annotated[
        str | None,
        Option(
            "Folder for downloaded datasets.",
            "DIRECTORY",
            resume=True,
            repeat=True,
            sweep=True,
            reproduce=True,
            folder=True,
        ),
    ] = None
    recipe: Annotated[
        str | None, Option("Name of a recipe, or `best`; default: the model's own.", "NAME", sweep=True)
    ] = None
    epochs: Annotated[
        int | None,
        Option("Passes over the training images.", least=1, recipe=True, resume=True, repeat=True, sweep=True),
    ] = None
    batch_size: Annotated[
        int | Literal["auto"] | None,
        Option(
            "Images per step; auto: the recipe's number, computed in as few micro-batches as fit in memory.",
            "N|auto",
            least=1,
            recipe=True,
            repeat=True,
        ),
    ] = None
    lr: Annotated[float | None, Option("Peak learning rate.", recipe=True, repeat=True)] = None
    seed: Annotated[int, Option("Seed for initial weights, image order and augmentation.", repeat=True, sweep=True)] = 0
    device: Annotated[
        str,
        Option(
            "Device to train on: auto, cpu, cuda, cuda:N or mps.", resume=True, repeat=True, sweep=True, reproduce=True
        ),
    ] = "auto"
    precision: Annotated[
        str | None, Option("Number type of the forward pass: auto, fp32, bf16 or fp16.", recipe=True, repeat=True)
    ] = None
    compile: Annotated[
        HowToCompile | None,
        Option(
            "off; graph: CUDA graphs only; default or max: torch.compile; auto: chosen by timing a step.",
            recipe=True,
            repeat=True,
        ),
    ] = None
    on_nan: Annotated[
        Literal["stop", "skip"] | None,
        Option("What to do when the loss of a step is not finite; default: stop.", recipe=True),
    ] = None
    image_size: Annotated[int | None, Option("Resize images to this side, in pixels.", least=1)] = None
    limit_train: Annotated[
        int | None,
        Option(
            "Train on N images only, a stratified subset (each class keeps its share).",
            "N",
            least=1,
            sweep=True,
            reproduce=True,
        ),
    ] = None
    limit_test: Annotated[
        int | None,
        Option(
            "Test on N images only, a stratified subset (each class keeps its share).", "N", least=1, reproduce=True
        ),
    ] = None
    max_steps: Annotated[int | None, Option("Stop after N steps.", "N", least=1)] = None
    settings: Annotated[
        tuple[str, ...],
        Option(
            "Override a key of the recipe: recipe.ema=0.99. May be repeated.",
            "KEY=VALUE",
            "--set",
            repeat=True,
            sweep=True,
        ),
    ] = ()
    protocol: Annotated[
        Literal["clean", "paper"],
        Option(
            "clean: validation images select the epoch; the test images are read once, at the end. paper: as the "
            "papers did, train on all training images and evaluate each epoch on the test images.",
            reproduce=True,
        ),
    ] = "clean"
    validation: Annotated[
        str | None,
        Option(
            "Images that select the epoch: a share of the training images (0.2), or a folder or file of their own, "
            "with classes of the same names; default: the dataset's own validation images, else a share of 0.1.",
            "PATH|FRACTION",
            sweep=True,
        ),
    ] = None
    pretrained: Annotated[bool, Option("Start from MODEL's own pretrained weights (fine-tuning).")] = False
    weights: Annotated[
        str | None,
        Option(
            "Start from these weights: hf://OWNER/NAME, a run, NAME@DATASET, or a model that has some: timm/NAME.TAG.",
            "WEIGHTS",
        ),
    ] = None
    teacher: Annotated[
        str | None,
        Option(
            "Learn from this trained model beside the labels (distillation): hf://OWNER/NAME, a run, NAME@DATASET, or "
            "timm/NAME.TAG; --set distill.kind, distill.weight and distill.temperature say how.",
            "TEACHER",
            recipe=True,
            repeat=True,
        ),
    ] = None
    task: Annotated[
        Literal["single-label", "multi-label"] | None,
        Option(
            "single-label: each image has one class. multi-label: it has any number of them; one file in several class "
            "folders is then one image. Default: what the labels are."
        ),
    ] = None
    skip_bad: Annotated[bool, Option("Leave out unreadable images; the run records how many.")] = False
    data_mode: Annotated[
        DataMode,
        Option(
            "resident: all decoded images stay on the device; stream: they are sent batch by batch; auto: stream if "
            "they would need more than half of the free memory."
        ),
    ] = "auto"
    workers: Annotated[
        int | None,
        Option(
            "Processes that decode streamed images (0: none); default: by the number of cores.",
            "N",
            least=0,
            resume=True,
            repeat=True,
        ),
    ] = None


@cache
def options() -> Mapping[str, Option]:
    """The fields of `Request` that are options, in order."""
    hints = get_type_hints(Request, include_extras=True)
    described = ((name, hints[name], getattr(hints[name], "__metadata__", ())) for name in Request.__struct_fields__)
    found = {name: extra[0]._replace(words=_words(hint.__origin__)) for name, hint, extra in described if extra}
    return MappingProxyType(found)


def _words(hint: Any) -> tuple[str, ...]:
    """The words of a Literal, with or without None beside it; () for any other type, or with numbers beside it."""
    if int in get_args(hint):
        return ()
    kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
    return get_args(kinds[0]) if kinds else ()


def flag(name: str) -> str:
    """The name of a field of `Request` on the command line: "--limit-train" for "limit_train"."""
    return options()[name].flag or f"--{name.replace('_', '-')}"


def refuse_impossible(request: Request) -> None:
    """Refuse values that are wrong for any run.

    Raises:
        InputError: names the option.
    """
    for name, option in options().items():
        if option.words and getattr(request, name) is not None:
            refuse_word(flag(name), getattr(request, name), option.words)
    if request.dataset == "":
        raise InputError("--dataset is empty; give a dataset, or leave it out for the model's own")
    if request.weights == "":
        raise InputError("--weights is empty; give weights, or use --pretrained for the model's own")
    if request.pretrained and request.weights:
        raise InputError(
            "--pretrained (the model's own weights) and --weights (others) cannot be combined; give one of them"
        )
    if request.validation is not None:
        if request.protocol == "paper":
            raise InputError("--protocol paper selects the epoch on the test images; leave out --validation")
        from zoo.runs.validation_images import share_or_spec

        share_or_spec(request.validation)
    for name, option in options().items():
        value = getattr(request, name)
        if name == "batch_size" and isinstance(value, str):
            refuse_word(flag(name), value, (AUTO,))
        elif option.least is not None and value is not None and value < option.least:
            raise InputError(f"{flag(name)} must be at least {option.least}, given {value}")


def refuse_word(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a word that is not among those allowed; the command's parser does it earlier.

    Raises:
        InputError: names them.
    """
    if value not in allowed:
        raise InputError(f"{name} {value!r}: allowed: {', '.join(allowed)}")


def refuse_around(checkpoint_seconds: float, checkpoint_steps: int, interrupt: str) -> None:
    """Refuse wrong values of what surrounds a training.

    Raises:
        InputError: names the option.
    """
    refuse_word("interrupt", interrupt, get_args(OnInterrupt))
    for name, value in (("checkpoint_seconds", checkpoint_seconds), ("checkpoint_steps", checkpoint_steps)):
        if not value >= 0:  # NaN too
            raise InputError(f"{name} must be at least 0, given {value}")


def plain(value: Any) -> Any:
    """A number of numpy or torch as one of Python; all else as it is."""
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def refuse_for_resume(given: Mapping[str, Any], output: object) -> None:
    """Refuse options that cannot change in a resumed run.

    Raises:
        InputError: names them, and those that can.
    """
    known = options()
    other = [flag(name) for name in given if not known[name].resume] + (["--output"] if output else [])
    if other:
        allowed = [flag(name) for name, option in known.items() if option.resume]
        raise InputError(
            f"--resume keeps the settings of the recorded run: {', '.join(other)} cannot be given with it; "
            f"{', '.join(allowed[:-1])} and {allowed[-1]} can"
        )


def refuse_two_beginnings(model: object, source: object, given: Mapping[str, Any], resume: bool) -> None:
    """Refuse a run to repeat beside a model, other weights or one to go on with, and nothing at all.

    Raises:
        InputError: says which.
    """
    if source is not None and (model is not None or resume):
        raise InputError("--from already says what to train; leave out MODEL and --resume")
    if source is not None and given.keys() & {"pretrained", "weights"}:
        raise InputError("--from starts from the weights of RUN; leave out --pretrained and --weights")
    if model is None and source is None:
        raise InputError("give a MODEL to train (see `zoo list`), or resume a run with --resume RUN")


def settings_of(given: Mapping[str, Any] | Sequence[str]) -> tuple[str, ...]:
    """Keys of a recipe as `--set` takes them.

    Args:
        given: `{"ema": 0.99}`, or texts "recipe.ema=0.99".
    Raises:
        InputError: one text in place of several, or a value that is none of TOML.
    """
    how = "give a table {'KEY': VALUE}, or a list of texts KEY=VALUE"
    if isinstance(given, str):
        raise InputError(f"settings {given!r} is one text; {how}")
    if not isinstance(given, Mapping):
        texts = tuple(given) if isinstance(given, Iterable) else (given,)
        if strange := [text for text in texts if not isinstance(text, str)]:
            raise InputError(f"settings: holds {shown(strange[0])}; {how}")
        return texts
    if strange := [key for key in given if not isinstance(key, str) or "=" in key]:
        raise InputError(f"settings: {shown(strange[0])} is no key of a recipe")
    try:
        return tuple(f"{key}={inline(plain(value))}" for key, value in given.items())
    except TypeError as error:
        raise InputError(f"settings: {error}; give numbers, texts, lists and tables") from None
