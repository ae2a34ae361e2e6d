"""Distillation: a student learns from a teacher, and what holds for any run holds for it too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import timm
import torch
from hub_server import HubServer
from hub_server.here import led_here
from hub_server.runs import own_caches
from sklearn.datasets import load_digits
from small_runs import trained, trainer
from timm.task import LogitDistillationTask, TokenDistillationTask, TrainingTask
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.catalogue.parts import entry_of
from zoo.catalogue.recipe import Distill, Recipe
from zoo.catalogue.registry import load_registry
from zoo.errors import InputError, RunError, SpecError
from zoo.models.tensors import to_bytes
from zoo.runs.folder import read_metrics, read_weights
from zoo.runs.record import CHECKPOINTS, read_record
from zoo.runs.without_paths import portable
from zoo.train import checkpoint
from zoo.train.distil import feature_distance, hard_distance, soft_distance
from zoo.train.loop import Saving, Stop, Trainer
from zoo.train.plan import resolve
from zoo.train.recipe_findings import recipe_findings
from zoo.train.run_options import Request
from zoo.train.start import plan_from, resumed
from zoo.train.teacher import columns_of, find_teacher

MODEL = "cnn-baseline"
FEATURES = "distill.kind=features"


def request(teacher: str | Path | None, *settings: str, **more: Any) -> Request:
    word = None if teacher is None else str(teacher)
    asked = {
        "model": MODEL,
        "dataset": "digits",
        "limit_train": 200,
        "limit_test": 50,
        "device": "cpu",
        "epochs": 1,
        **more,
    }
    return Request(**asked, teacher=word, settings=settings)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on digits that was trained well enough to teach."""
    folder = tmp_path_factory.mktemp("distil")
    torch.set_num_threads(1)
    with own_caches(folder):
        trainer(resolve(Request(model="cnn-baseline-bn", dataset="digits", device="cpu", epochs=6)), folder / "t").fit()
    return folder / "t"


# ---- the distances ------------------------------------------------------------------------------------


class _Fixed(nn.Module):
    """Gives the same logits for every batch, as timm's tasks ask a model for them."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.num_classes, self.in_chans = logits.shape[1], 3
        self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def forward(self, images: Tensor) -> Tensor:
        del images
        return self.logits


@pytest.mark.parametrize(("weight", "temperature"), [(0.5, 1.0), (0.7, 4.0), (1.0, 2.0)])
def test_the_loss_and_its_gradient_are_timms(weight: float, temperature: float) -> None:
    drawn = torch.Generator().manual_seed(1)
    ours, theirs = (3 * torch.randn(16, 10, generator=drawn) for _ in range(2))
    labels = torch.randint(10, (16,), generator=drawn)
    student = _Fixed(ours.clone())
    task: TrainingTask = LogitDistillationTask(
        student, _Fixed(theirs), nn.CrossEntropyLoss(), task_loss_weight=1 - weight, temperature=temperature
    )
    expected = task(torch.zeros(16, 3, 4, 4), labels)["loss"]
    expected.backward()
    ours.requires_grad_()
    hard = F.cross_entropy(ours, labels)
    loss = torch.lerp(hard, soft_distance(ours, theirs, temperature).mean(), weight)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.allclose(ours.grad, student.logits.grad, atol=1e-5)  # type: ignore[arg-type]


class _Two(_Fixed):
    """Gives the logits of both heads."""

    def set_distilled_training(self, enable: bool = True) -> None:
        self.distilled_training = enable

    def forward(self, images: Tensor) -> Any:
        return tuple(super().forward(images))


def test_a_distillation_token_learns_as_in_timm(teacher: Path, tmp_path: Path) -> None:
    tree = zoo.part("vit.timm", patch=4, embed=24, depth=2, heads=2, distilled=True)
    asked = request(teacher, "distill.kind=token", "distill.weight=0.3", "precision=fp32", model="x", max_steps=1)
    made = trainer(resolve(asked, entry=entry_of(tree)), tmp_path / "run")
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    both = made.module(images)
    first, second = (head.clone() for head in made.lesson.heads.seen)  # type: ignore[union-attr]
    assert torch.allclose(both, (first + second) / 2)
    wanted = made.lesson.taught(images)
    task: TrainingTask = TokenDistillationTask(
        _Two(torch.stack((first, second)).detach()),
        _Fixed(wanted),
        nn.CrossEntropyLoss(),
        distill_type="hard",
        task_loss_weight=0.7,
    )
    main = made.lesson.labelled(both)
    loss = made.lesson(F.cross_entropy(main, labels), images, main, None, 8)
    assert torch.equal(main, first)
    assert loss.item() == pytest.approx(task(images, labels)["loss"].item(), abs=1e-5)
    made.fit()
    with pytest.raises(InputError, match=r"cnn-baseline has no distillation token; take a model that has one"):
        resolve(request(teacher, "distill.kind=token"))


def test_the_other_distances_are_torchs() -> None:
    ours, theirs = torch.randn(8, 5), torch.randn(8, 5)
    assert torch.allclose(hard_distance(ours, theirs).mean(), F.cross_entropy(ours, theirs.argmax(1)))
    cosine = F.cosine_embedding_loss(ours, theirs, torch.ones(8))
    assert torch.allclose(feature_distance(ours, theirs).mean(), cosine, atol=1e-6)


# ---- what a student learns ----------------------------------------------------------------------------


def test_a_student_learns_from_its_teacher_what_its_labels_do_not_say(teacher: Path, tmp_path: Path) -> None:
    digits = load_digits()
    images = (digits.images * 255 / 16).astype(np.uint8)
    wrong = np.random.default_rng(0).permutation(digits.target)  # says nothing about the images
    data = ((images[:1200], wrong[:1200]), (images[1200:], digits.target[1200:]))
    same: dict[str, Any] = {"dataset": data, "epochs": 5, "device": "cpu"}
    settings = {"distill.weight": 1.0, "select": "last"}
    taught = zoo.train("cnn-baseline-bn", **same, settings=settings, teacher=teacher, output=tmp_path / "taught")
    alone = zoo.train("cnn-baseline-bn", **same, settings={"select": "last"}, output=tmp_path / "alone")
    assert taught.top1 is not None
    assert alone.top1 is not None
    assert taught.top1 > 0.6
    assert alone.top1 < 0.3


def test_the_teacher_sees_the_students_images_with_its_own_values_and_size(teacher: Path, tmp_path: Path) -> None:
    plan = resolve(request(teacher, "normalize=imagenet", image_size=16, max_steps=1))
    made = trainer(plan, tmp_path / "run")
    pixels = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    given = made.lesson.taught(made.augment.prepare(pixels))
    known = zoo.load(teacher)
    assert (known.sizes.height, plan.record.sizes.height) == (8, 16)
    data = read_record(teacher).data
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    small = F.interpolate(pixels / 255, (8, 8), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert torch.allclose(given, known((small - mean) / std), atol=1e-4)


def test_classes_are_matched_by_name() -> None:
    assert columns_of([("dog", "cat", "fox")], ["cat", "dog"], "teacher t") == (1, 0)
    assert columns_of([("n1", "n2"), ("cat", "dog")], ["dog", "cat"], "teacher t") == (1, 0)
    with pytest.raises(InputError, match=r"teacher t does not know 1 of 2 classes \(bee\); its own: dog, cat; give a"):
        columns_of([("dog", "cat")], ["dog", "bee"], "teacher t")


# ---- what holds for any run ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logits", "features"])
def test_a_resumed_student_is_the_one_that_nobody_stopped(kind: str, teacher: Path, tmp_path: Path) -> None:
    plan = resolve(request(teacher, f"distill.kind={kind}", "ema=0.9", 'augment=[{op="mixup", alpha=0.4}]', epochs=2))
    whole = trained(plan, tmp_path / "whole")
    folder = tmp_path / "stopped"
    steps = iter([0] * 3 + [15])
    with pytest.raises(Stop):
        trainer(plan, folder, stop=lambda: next(steps), saving=Saving(0, 1)).fit()
    again = Trainer(resumed(folder, read_record(folder)), folder)
    found = checkpoint.newest(folder / CHECKPOINTS)
    assert found is not None
    again.restore(found.state)
    again.fit()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in again.module.state_dict().items())
    assert read_metrics(folder)[-1]["train_loss"] == read_metrics(tmp_path / "whole")[-1]["train_loss"]
    kept = {"projection"} if kind == "features" else set()
    assert {"projection", "teacher", "lesson"} & found.state.keys() == kept  # no weight of the teacher's
    assert read_weights(folder).keys() == whole.keys()


@pytest.mark.parametrize("settings", [(), (FEATURES,), ('class_weights={ "3" = 6.0 }',)])
def test_micro_batches_teach_as_the_whole_batch_does(settings: tuple[str, ...], teacher: Path, tmp_path: Path) -> None:
    same = ("augment=[]", "dropout=0", "precision=fp32", "optimizer=sgd", "lr=0.05", "clip_grad_norm=0", *settings)
    one, three = (
        trained(resolve(request(teacher, *same, f"accumulate={n}", batch_size=45, max_steps=3)), tmp_path / str(n))
        for n in (1, 3)
    )
    alone = trained(resolve(request(None, *same[:6], batch_size=45, max_steps=3)), tmp_path / "alone")
    assert all(torch.allclose(tensor, three[name], atol=1e-5) for name, tensor in one.items())
    assert not all(torch.allclose(tensor, alone[name], atol=1e-4) for name, tensor in one.items())


def test_the_record_says_which_weights_taught_and_a_package_no_path(teacher: Path) -> None:
    record = resolve(request(teacher, "distill.weight=0.7")).record
    assert record.settings.distill == Distill(weight=0.7)
    assert record.settings.teacher == str(teacher)
    assert record.teacher
    assert (record.teacher.model, record.teacher.dataset) == ("cnn-baseline-bn", "digits")
    assert record.teacher.origin == f"sha256:{record.teacher.sha256}"
    assert portable(record).settings.teacher == record.teacher.origin
    with pytest.raises(InputError, match=r"distilled from weights that are not on the Hub .* --teacher RUN"):
        find_teacher(portable(record).settings, load_registry())


def test_weights_of_the_catalogue_teach_by_their_permanent_name() -> None:
    plan = resolve(request("hybrid-alt-1", max_steps=1))
    assert plan.record.settings.teacher == "hybrid-alt-1@digits"
    assert plan.record.teacher
    assert plan.record.teacher.origin == "hybrid-alt-1@digits"
    assert any(note.startswith("teacher hybrid-alt-1, ") for note in plan.notes)


def test_a_run_is_not_resumed_with_another_teacher(teacher: Path, tmp_path: Path) -> None:
    record = resolve(request(teacher, max_steps=1)).record
    assert record.teacher
    other = msgspec.structs.replace(record, teacher=msgspec.structs.replace(record.teacher, sha256="0" * 64))
    with pytest.raises(RunError, match=r"its weights are not those that this run was distilled from \(sha256"):
        resumed(tmp_path, other)


def test_a_repeated_run_may_get_another_teacher_and_a_fine_tuned_one_has_none(teacher: Path, tmp_path: Path) -> None:
    made = trainer(resolve(request(teacher, max_steps=1)), tmp_path / "run")
    made.fit()
    again = plan_from(str(tmp_path / "run"), {"teacher": "hybrid-alt-1@digits"})
    assert again.record.teacher
    assert again.record.teacher.model == "hybrid-alt-1"
    tuned = plan_from(str(tmp_path / "run"), {"dataset": "digits", "device": "cpu"})
    assert tuned.record.settings.teacher is None
    assert not tuned.record.teacher


def test_a_librarys_weights_teach_by_their_features(tmp_path: Path) -> None:
    name = "test_resnet.r160_in1k"
    with HubServer() as hub, led_here(hub, tmp_path / "hf", "t"):
        hub.store.users["t"] = ("me", "write")
        state = timm.create_model("test_resnet").state_dict()
        hub.store.put(f"timm/{name}", {"model.safetensors": to_bytes(state, {"format": "pt"})})
        with pytest.raises(InputError, match=r"does not know 10 of 10 classes \(0, 1, 2, 3, \.\.\.\)"):
            resolve(request(f"timm/{name}"))
        plan = resolve(request(f"timm/{name}", FEATURES, batch_size=8, max_steps=1, limit_train=20))
    made = trainer(plan, tmp_path / "run")
    assert made.lesson.taught(made.augment.prepare(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))).shape[0] == 2
    before = [p.clone() for p in made.lesson.parameters()]
    made.fit()
    assert all(not torch.equal(a, b) for a, b in zip(before, made.lesson.parameters(), strict=True))
    assert plan.record.settings.teacher == f"timm/{name}"


# ---- what cannot be -----------------------------------------------------------------------------------


def test_images_with_several_labels_are_refused_but_for_features(teacher: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    labels = np.eye(10, dtype=int)[np.arange(60) % 10] | np.eye(10, dtype=int)[np.arange(60) * 7 % 10]
    same: dict[str, Any] = {
        "dataset": (images, labels),
        "teacher": teacher,
        "device": "cpu",
        "max_steps": 1,
        "protocol": "paper",
    }
    with pytest.raises(InputError, match=r"the images have several labels; set distill\.kind to features"):
        zoo.train(MODEL, **same)
    assert zoo.train(MODEL, **same, settings={"distill.kind": "features"}, output=tmp_path / "run").result


def test_keys_of_a_table_are_set_one_by_one() -> None:
    with pytest.raises(SpecError, match=r"distill\.kind: .*'logit'; allowed: .*'logits'"):
        resolve(request("t", "distill.kind=logit"))
    with pytest.raises(SpecError, match=r"recipe\.ema is no table of keys; those are lookahead, distill"):
        resolve(request(None, "ema.x=1"))


def test_a_distillation_without_a_teacher_is_warned_about() -> None:
    assert "there is none; give one with --teacher" in recipe_findings(Recipe(distill=Distill()), 8, 8)[0].message
