"""The run folder: what is in it, reading it and writing it.

run.toml           everything resolved: model tree, recipe, dataset, seed, versions, commit
metrics.jsonl      one line for each epoch
checkpoints/       to go on after an interruption
model.safetensors  the selected weights
result.json        what came out, and how it was measured
curves.png         loss and top-1 over epochs
"""

from __future__ import annotations

import hashlib
import json
import tomllib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from zoo.base.drawing import plain_text, save, styled
from zoo.base.files import WriteError, write_bytes, write_text
from zoo.catalogue.augmentation import Struct
from zoo.catalogue.recipe import CompileMode, Recipe
from zoo.catalogue.spec import Node, Transform, decode, node_from_table
from zoo.errors import OtherVersionWarning, PackageError, RunError, SpecError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.catalogue.registry import Registry

FORMAT = 1
RECORD, METRICS, WEIGHTS, RESULT, CURVES = (
    "run.toml",
    "metrics.jsonl",
    "model.safetensors",
    "result.json",
    "curves.png",
)
CHECKPOINTS = "checkpoints"


class Sizes(Struct, kw_only=True):
    """What a model is composed for: channels, pixels, classes."""

    in_channels: int
    height: int
    width: int
    num_classes: int


class DataRecord(Struct, kw_only=True):
    """Which images a run saw, to the last one.

    Attributes:
        mode: whether they lay on the device, or were streamed to it; see `zoo.data.ImageData.fingerprint`.
        transform: how they were brought to their size, where the weights that the run began with say so;
            `mean` and `std` are then the weights' own too.
    """

    spec: str
    fingerprint: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    validation: int
    test: int
    validation_fraction: float = 0.1
    limit_train: int | None = None
    limit_test: int | None = None
    image_size: int | None = None
    skipped: int = 0
    mode: Literal["resident", "stream"] = "resident"
    transform: Transform | None = None


class RunRecord(Struct, kw_only=True):
    """`run.toml`: everything that decides a run, resolved.

    Attributes:
        build: the model's tree as in TOML. settings: the recipe with all overrides applied.
        base_model: the weights it began with, if any: "hf://OWNER/NAME@COMMIT", "timm/NAME.TAG" and the
            like, or "sha256:..." of a file. base_sha256: of that file, or of the tensors as they were loaded.
        base_hub: the repository that a card names as its base model, where it is not in `base_model`.
        plugins: what the run is made of to who brought it: see `zoo.catalogue.registry.provenance`.
        environment: versions, commit, device: what is recorded and does not decide.
    """

    format: int = FORMAT
    model: str
    build: dict[str, Any]
    sizes: Sizes
    recipe: str
    settings: Recipe
    data: DataRecord
    protocol: Literal["clean", "paper"]
    seed: int
    device: str
    precision: Literal["fp32", "bf16", "fp16"]
    channels_last: bool = False
    compile: CompileMode = "off"
    max_steps: int | None = None
    base_model: str = ""
    base_sha256: str = ""
    base_hub: str = ""
    plugins: dict[str, str] = {}
    environment: dict[str, str] = {}


def configuration(record: RunRecord) -> str:
    """A hash of everything that decides how a run goes; runs of the same one are the same run."""
    decides = msgspec.structs.replace(record, environment={}, plugins={})
    return hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:16]


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `run.toml`."""
    import tomli_w

    write_text(folder / RECORD, tomli_w.dumps(_without_none(msgspec.to_builtins(record))))


def read_record(folder: Path) -> RunRecord:
    """Read `run.toml`.

    Raises:
        RunError: no run folder, a damaged one, or one from a newer version.
    """
    path = folder / RECORD
    if not path.is_file():
        raise RunError(f"{folder}: no run folder: it has no {RECORD}; `zoo train` makes one")
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: damaged: {error}") from None
    form = table.get("format")
    if isinstance(form, int) and form > FORMAT:
        raise RunError(
            f"{path}: written by a newer version of hybrid-zoo (format {form}; this one reads up to "
            f"{FORMAT}); upgrade with `pip install -U hybrid-zoo`"
        )
    try:
        record = decode(RunRecord, table, str(path))
        node_from_table(record.build, f"{path}: build")
    except SpecError as error:
        raise RunError(f"{error}; the run folder is damaged") from None
    return record


def append_metrics(folder: Path, row: dict[str, Any]) -> None:
    """Add one line to `metrics.jsonl`."""
    path = folder / METRICS
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror}") from error


def rewrite_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write `metrics.jsonl` whole: what a resumed run knows to be true."""
    write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`; a half-written last line (a crash) is left out."""
    path = folder / METRICS
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write `result.json`."""
    write_text(folder / RESULT, json.dumps(result, indent=2) + "\n")


def read_result(folder: Path, *, checked: bool = True) -> dict[str, Any]:
    """Read `result.json`.

    Args:
        checked: counts and parameters must be there and possible; without it, whatever is there is shown.
    Raises:
        RunError: absent (the run was not finished) or damaged.
    """
    path = folder / RESULT
    if not path.is_file():
        raise RunError(f"{folder}: has no {RESULT}: this run was not finished")
    try:
        result: dict[str, Any] = json.loads(path.read_bytes())
        if checked:
            _check_result(result)
    except (ValueError, KeyError, TypeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{path}: damaged: {what}") from None
    return result


def _check_result(result: dict[str, Any]) -> None:
    for part in (result["test"], result.get("validation")):
        if part is not None and not 0 <= part["correct"] <= part["count"]:
            raise ValueError(f"{part['correct']} of {part['count']} correct")
    if not isinstance(result["parameters"], int):
        raise ValueError("parameters is no number")


def has_weights(folder: Path) -> bool:
    """Whether a run's weights are there and whole, by their header and their length."""
    return (folder / WEIGHTS).is_file() and not damage_of_weights(folder)


def damage_of_weights(folder: Path) -> str:
    """What is wrong with a run's weights, by their header and their length; "" where nothing is."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    if not path.is_file():
        return f"{folder}: finished, and has no {WEIGHTS}" if (folder / RESULT).is_file() else ""
    try:
        with safe_open(path, "np") as file:
            return "" if file.keys() else f"{path}: damaged: it holds no weights"
    except (SafetensorError, OSError) as error:
        return f"{path}: damaged: {error}"


def write_weights(folder: Path, state: dict[str, Tensor], record: RunRecord) -> None:
    """Write `model.safetensors`, with the model's name and tree in its metadata."""
    from zoo.models.tensors import to_bytes

    metadata = {"format": "pt", "zoo.model": record.model, "zoo.build": json.dumps(record.build)}
    write_bytes(folder / WEIGHTS, to_bytes(state, metadata))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read `model.safetensors`.

    Raises:
        RunError: absent or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise RunError(f"{folder}: has no {WEIGHTS}: no epoch of this run was finished")
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: damaged: {error}") from None
    return weights


def load(run: str | Path) -> nn.Module:
    """The model of a run folder, with its selected weights, in eval mode, on the CPU.

    Returns:
        A module, (B, C, H, W) normalised floats to (B, num_classes) logits; `read_record(run)` has
        the classes and the normalisation.
    Raises:
        RunError: no run folder, damaged, from a newer version, or weights that do not fit.
    Warns:
        OtherVersionWarning: a plugin that the run was made with has another version here.
    """
    from zoo.catalogue.registry import changes, load_registry
    from zoo.models.compose import compose

    folder = Path(run)
    record = read_record(folder)
    # The weights are at hand: `pretrained` would download others.
    tree = node_from_table(without(record.build, "pretrained"), f"{folder / RECORD}: build")
    registry, sizes = load_registry(), msgspec.structs.asdict(record.sizes)
    for line in changes(record.plugins, registry):
        warnings.warn(f"{folder}: {line}", OtherVersionWarning, stacklevel=2)
    _check_weights(folder, tree, registry, sizes)
    weights = read_weights(folder)
    module = compose(tree, registry, where="build", **sizes)
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise RunError(f"{folder / WEIGHTS}: does not fit the model of {RECORD}: {_first(error)}") from None
    return module.eval()


def without(value: Any, key: str) -> Any:
    """A tree as in TOML without one argument, wherever it stands."""
    if isinstance(value, dict):
        return {k: without(v, key) for k, v in value.items() if k != key}
    return [without(v, key) for v in value] if isinstance(value, list | tuple) else value


def _check_weights(folder: Path, tree: Node, registry: Registry, sizes: dict[str, int]) -> None:
    """The weights' header against the model on the meta device: before memory is taken.

    Raises:
        RunError: damaged, or of another model.
    """
    from zoo.models.header import compare, outline, read_header

    if not (folder / WEIGHTS).is_file():
        raise RunError(f"{folder}: has no {WEIGHTS}: no epoch of this run was finished")
    try:
        header = read_header(folder / WEIGHTS)
        compare(
            folder / WEIGHTS, header, outline(tree, registry, len(header.tensors), where="build", **sizes)
        )
    except PackageError as error:
        raise RunError(str(error)) from None


def draw_curves(folder: Path) -> None:
    """Draw `curves.png` from `metrics.jsonl`: loss and top-1 over epochs."""
    rows = read_metrics(folder)
    if not rows:
        return
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, (metric, label) in zip(
            figure.subplots(1, 2), (("loss", "loss"), ("top1", "top-1")), strict=True
        ):
            for split, dashes in (("train", "--"), ("val", "-"), ("test", "-")):
                points = [(r["epoch"], r[f"{split}_{metric}"]) for r in rows if f"{split}_{metric}" in r]
                if points:
                    mark = "." if len(points) < 40 else ""
                    axes.plot(*zip(*points, strict=True), dashes, marker=mark, label=split)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.grid(alpha=0.3)
            axes.legend(frameon=False)
        record = read_record(folder)
        title = f"{record.model} on {record.data.spec} ({record.recipe}, {record.protocol} protocol)"
        figure.suptitle(plain_text(title))
        save(figure, folder / CURVES)


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _without_none(value: Any) -> Any:
    """TOML has no null: leave out what is None."""
    if isinstance(value, dict):
        return {key: _without_none(v) for key, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list | tuple) else value
