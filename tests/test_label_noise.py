"""Labels that are probably wrong, found by networks that have not seen the images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.datasets import load_digits

import zoo
from zoo.cli.datasets import datasets
from zoo.errors import InputError
from zoo.evaluate.label_noise import disagreements
from zoo.evaluate.opened import open_run
from zoo.studies.folds import folds_of, probabilities_of

FLIPPED = 0.05


def digits(root: Path, rows: range, flipped: float) -> None:
    """Digits as files below train/ and test/; the names of those with a wrong label end with "wrong"."""
    whole, generator = load_digits(), np.random.default_rng(0)
    for row in rows:
        label, is_wrong = int(whole.target[row]), generator.random() < flipped
        shown = (label + int(generator.integers(1, 10))) % 10 if is_wrong else label
        side = "test" if row % 4 == 0 else "train"
        path = root / side / str(shown) / f"{row:04d}{'wrong' if is_wrong else ''}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((whole.images[row] * 15.9).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def noisy(plugin_index: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of digits with wrong labels, and a run that was trained on it."""
    base = tmp_path_factory.mktemp("noisy")
    digits(base / "digits", range(1000), FLIPPED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CACHE_DIR", str(base / "cache"))
        shutil.copytree(plugin_index, base / "cache")
        run = zoo.train(
            "cnn-baseline",
            dataset=f"folder:{base / 'digits'}",
            epochs=25,
            lr=3e-3,
            device="cpu",
            output=base / "run",
            progress=False,
        )
    assert run.top1 is not None
    return base / "digits", base / "run"


def test_wrong_labels_are_found_first(noisy: tuple[Path, Path]) -> None:
    folder, run = noisy
    check = zoo.check_dataset(f"folder:{folder}", label_noise=run, folds=2)
    assert check.label_noise is not None
    noise, wrong = check.label_noise, len(list(folder.glob("*/*/*wrong.png")))
    names = [suspect["source"] for suspect in noise["suspects"]]
    first = ["wrong" in name for name in names[: wrong // 2]]
    assert sum(first) >= 0.9 * len(first)
    assert sum("wrong" in name for name in names) >= 0.6 * wrong
    assert sum(noise["judged"].values()) == 1000
    assert (noise["left"], noise["folds"]) == (0, 2)
    suspect = noise["suspects"][0]
    assert suspect["given"] == Path(suspect["source"]).parent.name != suspect["suggested"]


def test_a_calibrated_run_judges_by_what_it_predicts(noisy: tuple[Path, Path]) -> None:
    run = open_run(noisy[1], split="test", device="cpu")
    run.classifier.temperature = 3.0
    found = probabilities_of(run.classifier, run.images, "run")
    wanted = run.classifier.probabilities(np.stack([*run.images.images[:16]]))
    np.testing.assert_allclose(found[:16], wanted.numpy(), atol=1e-5)


def test_without_folds_only_images_are_judged_that_the_run_has_not_learnt_from(
    noisy: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, run = noisy
    place = tmp_path / "check.html"
    words = ["check", f"folder:{folder}", "--label-noise", str(run), "--json", "--html", str(place)]
    done = CliRunner().invoke(datasets, words)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    noise = report["label_noise"]
    assert noise["judged"] == {"validation": 75, "test": 250}
    assert noise["left"] == 675
    splits = {suspect["split"] for suspect in noise["suspects"]}
    assert splits <= {"validation", "test"}
    finding = next(finding for finding in report["findings"] if finding["kind"] == "label-noise")
    assert "675 images that it learnt from not judged" in finding["message"]
    assert "Labels that are probably wrong" in place.read_text("utf-8")


def test_other_images_are_all_judged(noisy: tuple[Path, Path], tmp_path: Path) -> None:
    digits(tmp_path / "others", range(1200, 1500), 0.1)
    check = zoo.check_dataset(f"folder:{tmp_path / 'others'}", label_noise=noisy[1])
    assert check.label_noise is not None
    assert (sum(check.label_noise["judged"].values()), check.label_noise["left"]) == (300, 0)
    assert "wrong" in check.label_noise["suspects"][0]["source"]
    with pytest.raises(InputError, match="judges all images of"):
        zoo.check_dataset(f"folder:{tmp_path / 'others'}", label_noise=noisy[1], folds=2)


def test_folds_need_a_run_and_two_parts() -> None:
    for given in ({"folds": 3}, {"folds": 1, "label_noise": "runs/x"}):
        with pytest.raises(InputError, match=r"give 2 or more, and the run"):
            zoo.check_dataset("digits", **given)  # type: ignore[arg-type]  # two kinds of values


def test_a_disagreement_must_be_confident_and_the_least_probable_label_comes_first() -> None:
    probabilities = np.array(
        [
            [0.9, 0.05, 0.05],  # agrees
            [0.1, 0.8, 0.1],  # agrees
            [0.2, 0.1, 0.7],  # agrees
            [0.02, 0.95, 0.03],  # labelled 0, and 1 is said: confident
            [0.10, 0.85, 0.05],  # the same, less so
            [0.45, 0.50, 0.05],  # 1 is likelier, not confident: the mean of class 1 is 0.8
        ],
        np.float32,
    )
    rows, suggested = disagreements(np.array([0, 1, 2, 0, 0, 0]), probabilities)
    assert (rows.tolist(), suggested.tolist()) == ([3, 4], [1, 1])


def test_a_class_without_images_is_never_suggested() -> None:
    probabilities = np.array([[0.3, 0.1, 0.6], [0.1, 0.3, 0.6]], np.float32)
    assert disagreements(np.array([0, 1]), probabilities)[0].tolist() == []


def test_folds_have_their_share_of_every_class_and_leave_no_class_out() -> None:
    labels = np.array([0] * 10 + [1] * 7 + [2])
    folds = folds_of(labels, 3)
    assert folds[-1] == -1
    for label in (0, 1):
        counts = np.bincount(folds[labels == label], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert folds.tolist() == folds_of(labels, 3).tolist()


def test_folds_keep_groups_whole() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 40, 300)
    labels = np.where(groups == 7, 3, generator.integers(0, 3, 300))  # class 3 is one group alone
    folds = folds_of(labels, 4, groups)
    assert all(len(np.unique(folds[groups == group])) == 1 for group in np.unique(groups))
    assert set(folds[groups == 7].tolist()) == {-1}
    assert np.bincount(folds[groups != 7], minlength=4).min() > 55
    for fold in range(4):
        assert set(labels[folds != fold].tolist()) == {0, 1, 2, 3}
