"""Resolves a request into a plan: everything that decides a run, before training starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from zoo.base import children
from zoo.base.text import plural
from zoo.catalogue.provenance import provenance, require_components
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry, find_model, load_registry
from zoo.catalogue.spec import Model, decode
from zoo.data.augment.pipeline import crop_bounds
from zoo.data.batches.mode import Delivery, refuse_batch
from zoo.data.batches.open import BatchSource, open_source
from zoo.data.batches.sampler import refuse_sampler
from zoo.data.checks import division_findings, findings_for_training, imbalance_findings, range_of_classes
from zoo.data.files.image_files import FileImages
from zoo.data.findings import Finding
from zoo.data.given_data import GivenData
from zoo.data.load import load
from zoo.data.normalization import Normalization, normalization
from zoo.data.seeds import INIT, mix_seed
from zoo.data.sources.source import Show, silent
from zoo.data.split import VALIDATION_SEED, ImageData, Split
from zoo.data.split_findings import class_counts, refuse_classes
from zoo.errors import InputError
from zoo.evaluate.views import refuse_views
from zoo.models.arguments import defaults_of
from zoo.models.compose import check, compose, place
from zoo.models.device import Hardware, pick_device, pick_layout, placed, reasons
from zoo.models.own_module import state_hash
from zoo.models.precision import pick_precision
from zoo.plugin.contract import Transform
from zoo.plugin.layers import set_dropout
from zoo.runs.images import RunImages, images_of, scaling_of
from zoo.runs.own_source import own_of_run, own_parts
from zoo.runs.record import DataRecord, OwnPart, RunRecord, Sizes, tree_of
from zoo.runs.validation_images import ValidationImages
from zoo.train.divide import divided_for, splits_lines, validation_from
from zoo.train.environment import environment
from zoo.train.given import Given
from zoo.train.hidden_squares import refuse_mask
from zoo.train.kept_state import refuse_extra_state, refuse_lost_buffers, refuse_random_buffers
from zoo.train.loss import weights_of_classes
from zoo.train.optim.freeze import freeze
from zoo.train.optim.optimizers import make_optimizer
from zoo.train.own_augment import OwnAugment, code_of
from zoo.train.recipe_findings import recipe_findings
from zoo.train.recipe_settings import Beginning, resolved_recipe
from zoo.train.run_options import AUTO, Request, refuse_impossible
from zoo.train.sized import sized
from zoo.train.smaller_images import refuse_smaller_images
from zoo.train.speed.compile_trials import Trials, try_compiled
from zoo.train.speed.compiled import choose, measure_pace, why_no_graph
from zoo.train.speed.recomputed import recomputed
from zoo.train.student import refuse_student
from zoo.train.task import for_task, refuse_for_task
from zoo.train.teacher import Teacher, distill_of, find_teacher, matching
from zoo.train.too_small import refuse_untrainable

Entry = tuple[Registry, str, Model]
"""A catalogue, the name of a model in it, and the model."""


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs: its record, the images of each split, the hardware.

    Attributes:
        notes: the automatic choices and their reasons, a line each.
        findings: what is worth knowing about the images.
        messages: what else people are told about the run, a line each.
        weights: initial tensors by name; all others are initialised from the seed.
        augment: changes each batch before the recipe does, see `zoo.train.own_augment`.
        teacher: what the run is distilled from, see `zoo.train.teacher`.
    """

    record: RunRecord
    registry: Registry
    train: Split
    selecting: Split
    test: Split
    hardware: Hardware
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    messages: tuple[str, ...] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    augment: OwnAugment | None = None
    teacher: Teacher | None = None

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return self.record.settings

    @property
    def begins_here_alone(self) -> bool:
        """Whether its initial weights cannot be found again by what the record says of them."""
        return bool(self.weights) and self.record.base_model.startswith("sha256:")

    @property
    def images_per_class(self) -> str:
        """Training images of the smallest and of the largest class, in words."""
        return range_of_classes(self.train, self.record.data.classes)

    def source(self, split: Split) -> BatchSource:
        """A split, resident on the device or streamed to it; only its method `steps` crops at random."""
        return open_source(
            split,
            self.hardware.device,
            channels_last=self.hardware.channels_last,
            bounds=crop_bounds(self.recipe.augment, self.record.data.decoding or None),
            seed=self.record.seed,
        )

    def build(self) -> nn.Module:
        """The module with its initial weights, a function of the tree, the sizes, the seed and `weights`."""
        record = self.record
        tree = tree_of(record)
        torch.manual_seed(mix_seed(record.seed, INIT))
        where = place(self.registry, record.model)
        module = compose(tree, self.registry, where=where, **msgspec.structs.asdict(record.sizes))
        if self.recipe.dropout is not None:
            set_dropout(module, self.recipe.dropout)
        if self.weights:
            module.load_state_dict({**module.state_dict(), **self.weights})
        return placed(module, self.hardware.device, self.hardware.channels_last)


def resolve(
    request: Request,
    show: Show = silent,
    entry: Entry | None = None,
    beginning: Beginning = Beginning(),  # noqa: B008 - frozen
    given: Given = Given(),  # noqa: B008 - frozen
) -> Plan:
    """Decide everything: model, recipe, dataset, splits, device, precision.

    Args:
        entry: the catalogue and the model; default: those that the request names.
        beginning: what the initial weights require; options of the request override it.
        given: what takes the place of names in the request.
    Raises:
        ZooError: something cannot be used; one line says what.
    """
    registry, name, model = entry or find_model(request.model)
    device = pick_device(request.device)
    refuse_impossible(request)
    spec = request.dataset or model.dataset
    recipe_name, recipe = resolved_recipe(request, registry, model, spec, beginning, given.recipe)
    image_size = recipe.image_size if request.image_size is None else request.image_size
    transform, told = sized(beginning, spec, registry, image_size)
    if transform:
        beginning.fetch(*transform.size)
    if image_size:
        refuse_batch(_at_once(recipe, request.limit_train), (image_size, image_size), str(device))
    delivery = Delivery(request.data_mode, request.workers, str(device))
    teacher = find_teacher(recipe, registry)
    data = _load(spec, registry, request, image_size, delivery, show, transform, given.data)
    refuse_classes(data)
    recipe, messages = for_task(recipe, data.task, request)
    images, found = divided_for(request, data, registry, delivery, transform)
    splits = images.divided()
    refuse_sampler(recipe.sampler, splits[0])
    weights_of_classes(recipe, class_counts(splits[0], len(data.classes)), data.classes)  # refuses what it cannot use
    channels, height, width = splits[0].images.shape[1:]
    sizes = Sizes(in_channels=channels, height=height, width=width, num_classes=len(data.classes))
    refuse_mask(recipe, height, width)
    outline = _outline((registry, name, model), recipe, sizes)
    own = _own((registry, name, model), given, sizes)
    if given.augment is not None:
        given.augment.try_out(splits[0], device, sizes.num_classes)
    normal = normalization(recipe.normalize, data, show, mean=beginning.mean, std=beginning.std)
    precision = pick_precision(recipe.precision, device)
    hardware = Hardware(device, precision, pick_layout(recipe.channels_last, outline, device, precision))
    record = RunRecord(
        model=name,
        build=model.build.to_table(),
        sizes=sizes,
        recipe=recipe_name,
        settings=recipe,
        data=_data_record(images, splits, request, image_size, transform, normal, found, recipe, beginning.transform),
        protocol=request.protocol,
        seed=request.seed,
        device=str(device),
        precision=precision,
        channels_last=hardware.channels_last,
        max_steps=request.max_steps,
        plugins=provenance(registry, model.build, model=name, recipe=recipe_name, dataset=spec),
        environment=environment(device),
        defaults=defaults_of(model.build, registry),
        own=own,
    )
    usual, unusual = splits_lines(images, found)
    notes = (*data.notes, *normal.notes(len(data.train)), *reasons(hardware, recipe.precision), *usual)
    findings, messages = _findings(images, splits, record, request), (*messages, *told, *unusual)
    plan = Plan(record, registry, *splits, hardware, notes, findings, messages, augment=given.augment)
    ready = taught(beginning_ready(plan), teacher)
    return ready if request.batch_size == AUTO else with_compiler(ready)  # it times a step, which must fit first


def _own(entry: Entry, given: Given, sizes: Sizes) -> tuple[OwnPart, ...] | msgspec.UnsetType:
    """What the record says of the user's own code; such a model is run once, which a tested component need not be."""
    registry, name, model = entry
    own = own_parts(registry, model.build, code_of(given.augment))
    if own:
        check(model.build, registry, where=place(registry, name), **msgspec.structs.asdict(sizes))
    return own


def _findings(
    images: RunImages, splits: tuple[Split, Split, Split], record: RunRecord, request: Request
) -> tuple[Finding, ...]:
    """What is worth knowing about the images, their division, and the recipe at their size."""
    data, train, drawn = images.data, splits[0], splits[1] if images.carves else None
    return (
        *findings_for_training(data, clean=record.protocol == "clean"),
        *division_findings(data, train, request.limit_train, drawn, images.other),
        *imbalance_findings(train, data.classes, record.settings),
        *recipe_findings(record.settings, record.sizes.height, record.sizes.width),
    )


def _at_once(recipe: Recipe, limit: int | None) -> int:
    """Images of a batch that this process computes with at once."""
    parts = recipe.accumulate * children.started_together()
    return max(1, min(recipe.batch_size, limit or recipe.batch_size) // parts)


def _outline(entry: Entry, recipe: Recipe, sizes: Sizes) -> nn.Module:
    """Build the model without memory and apply the recipe to it, to report errors before the run starts."""
    registry, name, model = entry
    refuse_views(recipe.tta, sizes.height, sizes.width)
    meta = torch.device("meta")

    def build() -> nn.Module:
        return compose(model.build, registry, where=place(registry, name), **msgspec.structs.asdict(sizes))

    with meta:
        outline = build()
    refuse_extra_state(outline, name)
    refuse_random_buffers(outline, build, name)
    refuse_lost_buffers(outline, build, (sizes.in_channels, sizes.height, sizes.width), name)
    if recipe.dropout is not None:
        set_dropout(outline, recipe.dropout)
    refuse_untrainable(freeze(outline, recipe.freeze), name)
    recomputed(outline, recipe.checkpointing)  # refuses a model without blocks
    if recipe.teacher is not None:
        refuse_student(outline, distill_of(recipe), sizes.num_classes, name)
    make_optimizer(outline, recipe, meta)
    refuse_smaller_images(outline, recipe, sizes, name)
    return outline


def with_compiler(plan: Plan) -> Plan:
    """The plan with the compiler's mode decided, and the reason added to its notes; what is timed is a micro-batch."""
    record, hardware, recipe = plan.record, plan.hardware._replace(compile="off"), plan.recipe
    steps = recipe.epochs * math.ceil(record.data.train / recipe.batch_size)
    shape = (
        math.ceil(recipe.batch_size / recipe.accumulate),
        record.sizes.in_channels,
        record.sizes.height,
        record.sizes.width,
    )
    if recipe.checkpointing and recipe.compile not in ("auto", "off"):
        raise InputError(
            f"recipe.checkpointing cannot be used with --compile {recipe.compile}: the second computation of a block "
            "is not compiled or recorded; leave out one of them"
        )
    mode, why = choose(
        "off" if recipe.checkpointing else recipe.compile,
        hardware.device,
        min(steps, record.max_steps or steps) * recipe.accumulate,
        lambda: measure_pace(plan.build().train(), shape, hardware, why_not=why_no_graph(recipe, hardware)),
        Trials(record, hardware, lambda: try_compiled(plan.build().train(), shape, hardware)),
    )
    return replace(
        plan,
        record=msgspec.structs.replace(record, compile=mode),
        hardware=hardware._replace(compile=mode),
        notes=(*plan.notes, f"compile {why}"),
    )


def beginning_ready(plan: Plan) -> Plan:
    """The plan whose record names the weights of a module that was given ready, if it was."""
    if own_of_run(plan.record, "module") is None:
        return plan
    digest = state_hash(plan.build())
    return replace(plan, record=msgspec.structs.replace(plan.record, base_model=f"sha256:{digest}", base_sha256=digest))


def taught(plan: Plan, teacher: Teacher | None) -> Plan:
    """The plan with its teacher, which its record then names.

    Raises:
        InputError, RunError: as `zoo.train.teacher.matching`.
    """
    if teacher is None:
        return plan
    teacher = matching(teacher, plan.record)
    settings = msgspec.structs.replace(plan.recipe, teacher=teacher.reference)
    record = msgspec.structs.replace(plan.record, settings=settings, teacher=teacher.record)
    return replace(plan, record=record, teacher=teacher, notes=(*plan.notes, teacher.note()))


def refuse_longer(record: RunRecord, epochs: int) -> None:
    """Refuse another number of epochs for a run that was limited to some steps.

    Raises:
        InputError: says so.
    """
    if record.max_steps and epochs != record.settings.epochs:
        raise InputError(
            f"--epochs {epochs}: this run was limited to {plural(record.max_steps, 'step')} (--max-steps), so it ended "
            "within an epoch and cannot be extended; start a new run"
        )


def replan(
    record: RunRecord,
    registry: Registry | None = None,
    *,
    given: Given = Given(),  # noqa: B008 - frozen
    data_dir: str | None = None,
    epochs: int | None = None,
    workers: int | None = None,
    show: Show = silent,
) -> Plan:
    """The plan of a recorded run, to resume or repeat it; `epochs` extends (or shortens) it.

    Args:
        registry: the catalogue; loaded if not given.
        workers: processes that decode streamed images; they do not change the results.
        given: the data and the function for batches that the run was given, where it was.
    Raises:
        InputError: the run was given a function for batches, and `given` has none.
        RunError: the dataset or the teacher differs from the recorded one. ZooError: as `resolve`.
        MissingPluginError: no installed plugin offers one of the model's components.
    """
    registry, device = registry or load_registry(), pick_device(record.device)
    require_components(tree_of(record), record.plugins, registry, "the run", record.model)
    augment = given.augment_again(record)
    teacher = find_teacher(record.settings, registry)
    refuse_for_task(record.settings, record.data.task or "single-label")
    refuse_mask(record.settings, record.sizes.height, record.sizes.width)
    images = images_of(record, registry, data_dir=data_dir, workers=workers, show=show, given=given.data)
    if epochs is not None:
        refuse_longer(record, epochs)
        recipe = decode(Recipe, {**msgspec.to_builtins(record.settings), "epochs": epochs}, "--epochs")
        record = msgspec.structs.replace(record, settings=recipe, max_steps=None)
    hardware = Hardware(device, record.precision, record.channels_last, record.compile)
    return taught(Plan(record, registry, *images.divided(), hardware, augment=augment), teacher)


def _load(
    spec: str,
    registry: Registry,
    request: Request,
    image_size: int | None,
    delivery: Delivery,
    show: Show,
    transform: Transform | None,
    given: GivenData | None = None,
) -> ImageData:
    return load(
        spec,
        registry,
        data_dir=Path(request.data_dir) if request.data_dir else None,
        image_size=image_size,
        seed=VALIDATION_SEED,
        show=show,
        skip_bad=request.skip_bad,
        delivery=delivery,
        transform=transform,
        given=given,
        task=request.task,
    )


def _data_record(
    images: RunImages,
    splits: tuple[Split, Split, Split],
    request: Request,
    image_size: int | None,
    transform: Transform | None,
    normal: Normalization,
    validation: ValidationImages | None,
    recipe: Recipe,
    expected: Transform | None,
) -> DataRecord:
    data, clean = images.data, request.protocol == "clean"
    colours = data.colours
    cut_from_files = isinstance(splits[0].images, FileImages) and crop_bounds(recipe.augment) is not None
    return DataRecord(
        spec=data.spec,
        fingerprint=data.fingerprint,
        classes=data.classes,
        mean=normal.mean,
        std=normal.std,
        train=len(splits[0]),
        validation=len(splits[1]) if clean else 0,
        test=len(splits[2]),
        validation_fraction=images.validation if images.carves else 0.0,
        limit_train=request.limit_train,
        limit_test=request.limit_test,
        image_size=image_size,
        skipped=data.skipped,
        mode="stream" if data.streamed else "resident",
        transform=transform,
        white=data.white,
        validation_from=validation_from(images, validation),
        validation_fingerprint=validation.fingerprint if validation else msgspec.UNSET,
        test_from=data.splits_from.test,
        black=colours.black if data.white and colours.black else msgspec.UNSET,
        background=colours.background if colours.background not in (None, "white") else msgspec.UNSET,
        measured_on=normal.measured_on or msgspec.UNSET,
        task="multi-label" if data.task == "multi-label" else msgspec.UNSET,
        decoding="reduced-torch" if cut_from_files else msgspec.UNSET,
        shuffle=getattr(data.train.images, "shuffle", msgspec.UNSET),
        scaling=msgspec.UNSET if expected else scaling_of(data),
    )
