"""`run.toml`: everything that decides a run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

from zoo.base.files import bytes_of_file, write_text
from zoo.base.install import upgrade_line
from zoo.base.structs import Decoding, Precision, Struct
from zoo.catalogue.recipe import CompileMode, Recipe
from zoo.catalogue.spec import Node, decode, recorded_tree
from zoo.data.shards.shuffle import Shuffle
from zoo.errors import RunError, SpecError
from zoo.plugin.contract import Transform
from zoo.runs.record_tables import RecordTables

FORMAT = 1

DIRTY = "-dirty"
"""How the name of a commit ends where files of the checkout were changed."""

OUT_OF_MEMORY = "out of memory"
"""The line of a record's environment that says that memory did not suffice, and what was halved."""

RECORD, METRICS, WEIGHTS, RESULT, CURVES = (
    "run.toml",
    "metrics.jsonl",
    "model.safetensors",
    "result.json",
    "curves.png",
)

CHECKPOINTS, SOURCE = "checkpoints", "source"


class Sizes(Struct, kw_only=True):
    """What a model is composed for: channels, pixels, classes."""

    in_channels: int
    height: int
    width: int
    num_classes: int


class DataRecord(Struct, kw_only=True):
    """Which images a run saw, to the last one.

    Attributes:
        mode: whether they lay on the device, or were streamed to it; see `zoo.data.split.ImageData.fingerprint`.
        transform: how they were brought to their size, where the weights that the run began with say so;
            `mean` and `std` are then the weights' own too.
        white: the value of images of more than 8 bits that was read as white; None where there were none.
        validation_fraction: 0 where no share of the training images was held out.
        validation_from: where the validation images came from: "carved" out of the training images, the name of the
            dataset's own folder or split, the SPEC of another dataset, or "none". Runs of earlier versions do not say.
        validation_fingerprint: of that other dataset.
        test_from: where the test images came from: "carved", or the name of a folder or split; "" if not known.
        black: the one that was read as black; absent where it is 0.
        background: the colour behind transparent pixels; absent where it is white.
        measured_on: how many training images `mean` and `std` were measured on; absent where the dataset or the weights
            name them, and where nothing is normalised by them.
        task: "multi-label" where images may have several labels; absent where each has one.
        decoding: how images that were cut at random were decoded and scaled, see `zoo.data.augment.crop.Bounds`:
            "reduced" in runs of an earlier version; absent where all were decoded at full size and scaled by PIL.
        shuffle: the numbers of the rule that orders an epoch of images in shards; absent where none come from shards.
        scaling: how the dataset brings an image of any size to that of its images; absent where `transform` says so,
            and in runs of earlier versions, whose dataset is asked. Beside a `transform`, both are that of a dataset
            which initial weights were trained on.
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
    white: float | None = None
    validation_from: str | msgspec.UnsetType = msgspec.UNSET
    validation_fingerprint: str | msgspec.UnsetType = msgspec.UNSET
    test_from: str | msgspec.UnsetType = msgspec.UNSET
    black: float | msgspec.UnsetType = msgspec.UNSET
    background: str | msgspec.UnsetType = msgspec.UNSET
    measured_on: int | msgspec.UnsetType = msgspec.UNSET
    task: Literal["multi-label"] | msgspec.UnsetType = msgspec.UNSET
    decoding: Decoding | msgspec.UnsetType = msgspec.UNSET
    shuffle: Shuffle | msgspec.UnsetType = msgspec.UNSET
    scaling: Transform | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.task == "multi-label"


class OwnPart(Struct, kw_only=True):
    """Code of the user's own that a run is made of; the run folder keeps a copy of it.

    Attributes:
        use: the component that it is ("own.MyNet"), or "augment" for what changes the batches.
        kind: what the component builds; "module": a module that was given ready.
        attribute: the name of the class or function. sha256: of its source; "" where that is not known.
        file: where it stood; "" where it was typed in. copy: its file in the run folder.
        script: whether that file was the script that was running; the copy is then what the code needs of it.
        beside: other sources that it imports, by their paths from its folder, to their sha256.
    """

    use: str
    kind: Literal["classifier", "part", "stem", "module", "augment"]
    attribute: str
    sha256: str = ""
    file: str = ""
    copy: str = ""
    script: bool = False
    beside: dict[str, str] = {}


class Ingredient(Struct):
    """A run whose weights are in a soup.

    Attributes:
        name: what it was called. sha256: of its weights. weight: what they count in the mean. seed: of its training.
    """

    name: str
    sha256: str
    weight: float
    seed: int = 0


class Soup(Struct):
    """How a run was made of other runs: see `zoo.studies.soup` and `zoo.studies.ensemble_run`.

    Attributes:
        method: "uniform" or "greedy": their weights were averaged; "ensemble": their probabilities are.
        of: what is averaged, in the order in which it was taken.
    """

    method: Literal["uniform", "greedy", "ensemble"]
    of: tuple[Ingredient, ...]


class TeacherRecord(Struct, kw_only=True):
    """The model that a run was distilled from: exactly these weights.

    Attributes:
        model: its name. dataset: the SPEC of what it was trained on; "" where that is not known.
        origin: "hf://OWNER/NAME@COMMIT", NAME@DATASET, "timm/NAME.TAG" and the like, or "sha256:..." of a run's file.
        sha256: of the weights file, or of the tensors of a library's weights.
    """

    model: str
    dataset: str = ""
    origin: str
    sha256: str


class RunRecord(Struct, kw_only=True):
    """`run.toml`: everything that decides a run, resolved.

    Attributes:
        build: the model's tree as in TOML. settings: the recipe with all overrides applied.
        base_model: the weights it began with, if any: "hf://OWNER/NAME@COMMIT", "timm/NAME.TAG" and the
            like, or "sha256:..." of a file. base_sha256: of that file, or of the tensors as they were loaded.
        base_hub: the repository that a card names as its base model, where it is not in `base_model`.
        teacher: the model that it was distilled from; absent where there is none.
        plugins: what the run is made of to who brought it: see `zoo.catalogue.provenance.provenance`.
        environment: versions, commit, device: what is recorded and does not decide.
        defaults: component name to the defaults of its arguments, as JSON: a plugin may change them later. Runs of
            earlier versions have none.
        own: code of the user's own that it is made of; absent where there is none.
        soup: the runs that it was made of, where it was not trained itself; the rest of the record is then of the first
            of them.
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
    precision: Precision
    channels_last: bool = False
    compile: CompileMode = "off"
    max_steps: int | None = None
    base_model: str = ""
    base_sha256: str = ""
    base_hub: str = ""
    teacher: TeacherRecord | msgspec.UnsetType = msgspec.UNSET
    plugins: dict[str, str] = {}
    environment: dict[str, str] = {}
    defaults: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    own: tuple[OwnPart, ...] | msgspec.UnsetType = msgspec.UNSET
    soup: Soup | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_ensemble(self) -> bool:
        """Whether it was not trained, but answers for other runs together."""
        return isinstance(self.soup, Soup) and self.soup.method == "ensemble"

    @property
    def without_labels(self) -> bool:
        """Whether it learns hidden pixels in place of classes, so that it has no accuracy."""
        return self.settings.objective == "masked"


def tree_of(record: RunRecord, where: str = "build", *, pretrained: bool = True) -> Node:
    """The model's tree, with the defaults that its components had when the run was recorded.

    Args:
        pretrained: whether arguments of that name stay; they would download weights where the run's are at hand.
    """
    build = record.build if pretrained else without(record.build, "pretrained")
    return recorded_tree(build, record.defaults, where)


def configuration(record: RunRecord) -> str:
    """A hash of everything that decides how a run goes; runs of the same one are the same run."""
    own = record.own and tuple(msgspec.structs.replace(part, file="", copy="") for part in record.own)
    # What is left of the data says which images these are: a fingerprint, and the share that is held out.
    unset = dict.fromkeys(("validation_from", "test_from", "scaling"), msgspec.UNSET)
    data = msgspec.structs.replace(record.data, **unset)
    decides = msgspec.structs.replace(record, environment={}, plugins={}, defaults=msgspec.UNSET, own=own, data=data)
    return hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:16]


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `run.toml`."""
    import tomli_w

    write_text(folder / RECORD, tomli_w.dumps(_without_none(msgspec.to_builtins(record))))


def read_record(folder: Path, tables: RecordTables | None = None) -> RunRecord:
    """Read `run.toml`.

    Args:
        tables: what has read other runs' files, where many are read.
    Raises:
        RunError: no run folder, a damaged one, or one from a newer version.
    """
    path, tables = f"{folder}/{RECORD}", tables or RecordTables()
    try:
        if (data := bytes_of_file(path)) is None:
            raise RunError(f"{folder}: no run folder: it has no {RECORD}; `zoo train` makes one")
        table = tables.parse(data)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: damaged: {error}") from None
    form = table.get("format")
    if isinstance(form, int) and form > FORMAT:
        raise RunError(
            f"{path}: written by a newer version of hybrid-zoo (format {form}; this one reads up to "
            f"{FORMAT}); upgrade with `{upgrade_line()}`"
        )
    try:
        record = decode(RunRecord, table, path)
        tables.check([table["build"], table.get("defaults")], lambda: tree_of(record, f"{path}: build"))
    except SpecError as error:
        raise RunError(f"{error}; the run folder is damaged") from None
    return record


def without(value: Any, key: str) -> Any:
    """A tree as in TOML without one argument, wherever it stands."""
    if isinstance(value, dict):
        return {k: without(v, key) for k, v in value.items() if k != key}
    return [without(v, key) for v in value] if isinstance(value, list | tuple) else value


def _without_none(value: Any) -> Any:
    """TOML has no null: leave out what is None."""
    if isinstance(value, dict):
        return {key: _without_none(v) for key, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list | tuple) else value
