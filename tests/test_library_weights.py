"""Weights that timm and torchvision released, used like a run: images, logits and classes are the library's own."""

from __future__ import annotations

import io
import json
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import timm
import torch
import torchvision
from click.testing import CliRunner
from hub_server import HubServer
from hub_server.here import led_here
from PIL import Image
from timm.data import ImageNetInfo, create_transform, resolve_data_config, resolve_model_data_config
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models

import zoo
from zoo.catalogue.registry import Registry, load_registry
from zoo.cli import cli
from zoo.data.files.decode import transform_rule
from zoo.errors import HubConnectionError, InputError, PluginError, RunError, UnknownNameError, ZooError, ZooWarning
from zoo.evaluate.preparing import ImageTransform, Preprocessing
from zoo.hub.ask_library import library_weights, open_word
from zoo.models.tensors import to_bytes
from zoo.plugin import Component, Pretrained, Transform
from zoo_timm.pretrained import pretrained as of_timm
from zoo_torchvision.pretrained import pretrained as of_torchvision

TOKEN = "of-me"
TIMMS = ("test_vit.r160_in1k", "test_efficientnet.r160_in1k", "test_resnet.r160_in1k")
VISIONS = ("squeezenet1_1", "googlenet")
ODD = ((300, 201), (203, 333), (500, 375), (161, 160), (611, 37), (100, 100))
"""Sizes of images whose longer side and crop fall between two pixels."""

Inference = tuple[nn.Module, Callable[[Image.Image], Tensor]]


def lively(module: nn.Module) -> nn.Module:
    """The module with random weights that let its logits depend on the image."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    module.train()
    with torch.inference_mode():
        for _ in range(3):
            module(torch.randn(4, 3, 160, 160))  # sets the statistics of batch norms
    return module.eval()


def put_weights(hub: HubServer, checkpoints: Path) -> None:
    """Random weights where the libraries look for theirs: on the Hub, and in torch's cache."""
    for name in TIMMS:
        state = lively(timm.create_model(name.partition(".")[0])).state_dict()
        hub.store.put(f"timm/{name}", {"model.safetensors": to_bytes(state, {"format": "pt"})})
    checkpoints.mkdir(parents=True)
    for name in VISIONS:
        model = get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
        torch.save(lively(model).state_dict(), checkpoints / Path(get_model_weights(name)["DEFAULT"].url).name)


@pytest.fixture(scope="module", autouse=True)
def photos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Images of odd sizes; the libraries find their weights meanwhile."""
    folder = tmp_path_factory.mktemp("weights")
    drawn = np.random.default_rng(0)
    paths = [folder / f"{width}x{height}.png" for width, height in ODD]
    for path, (width, height) in zip(paths, ODD, strict=True):
        small = drawn.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)
    with HubServer() as hub, led_here(hub, folder / "hf", TOKEN), pytest.MonkeyPatch.context() as patch:
        hub.store.users[TOKEN] = ("me", "write")
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        put_weights(hub, folder / "torch" / "hub" / "checkpoints")
        yield paths


def inference_of(word: str) -> Inference:
    """The library's own: its model with its weights, and its transform."""
    library, _, name = word.partition("/")
    if library == "timm":
        model = timm.create_model(name, pretrained=True).eval()
        return model, create_transform(**resolve_model_data_config(model), is_training=False)
    weights = get_model_weights(name.partition(".")[0])["DEFAULT"]
    return get_model(name.partition(".")[0], weights=weights).eval(), weights.transforms()


def logits_of(inference: Inference, paths: list[Path]) -> Tensor:
    model, transform = inference
    with torch.inference_mode():
        return torch.cat([model(transform(Image.open(path).convert("RGB"))[None]) for path in paths])


# ---- what the library itself gives --------------------------------------------------------------


@pytest.mark.parametrize("word", [*(f"timm/{name}" for name in TIMMS), *(f"torchvision/{name}" for name in VISIONS)])
def test_logits_and_probabilities_are_the_librarys_own(word: str, photos: list[Path]) -> None:
    theirs = logits_of(inference_of(word), photos)
    assert theirs.std(0).max() > 0.1  # they tell the images apart
    model = zoo.load(word)
    ours = model.logits(np.stack([model.decode(path, path.name) for path in photos]))
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    found = np.stack([one.probabilities for one in zoo.predict(word, photos)])
    assert np.abs(found - theirs.softmax(1).numpy()).max() < 1e-5


@pytest.mark.parametrize("word", ["timm/test_vit.r160_in1k", "timm/test_resnet.r160_in1k", "torchvision/squeezenet1_1"])
def test_features_are_the_librarys_own(word: str, photos: list[Path], tmp_path: Path) -> None:
    model, transform = inference_of(word)
    if word.startswith("timm"):
        model.reset_classifier(0)  # type: ignore[operator]
    else:
        model.classifier = nn.Identity()  # its features are the map before the classes, averaged
        model.forward = lambda images: model.features(images).mean((2, 3))  # type: ignore[operator,method-assign,operator]
    theirs = logits_of((model, transform), photos).numpy()
    found = zoo.embed(word, photos, output=tmp_path / "features.npy")
    assert found.feature == "pre_logits"
    assert np.abs(found.features - theirs).max() < 1e-5 * max(1.0, np.abs(theirs).max())


def difference(given: Pretrained, theirs: Callable[[Image.Image], Tensor], paths: list[Path]) -> float:
    """The largest difference of a prepared pixel, in units of the spread that it is divided by."""
    assert given.transform is not None
    rule = transform_rule(given.transform)
    ours = ImageTransform(Preprocessing(rule, given.mean, given.std, True), given.transform.size)
    return max(float((ours(path) - theirs(Image.open(path).convert("RGB"))).abs().max()) for path in paths)


def test_images_are_prepared_as_torchvision_does_for_all_of_its_weights(photos: list[Path]) -> None:
    several = {}
    for name in list_models(module=torchvision.models):
        for weights in get_model_weights(name):
            if weights.meta.get("categories") and name not in ("googlenet", "inception_v3"):  # these normalise inside
                several[repr(weights.transforms())] = (f"{name}.{weights.name}", weights.transforms())
    assert len(several) > 15
    for name, transform in several.values():
        assert difference(of_torchvision(name=name), transform, photos[:3]) < 1e-5, name


@pytest.mark.parametrize(
    "name",
    ["resnet18.a1_in1k", "dm_nfnet_f0.dm_in1k", "vit_base_patch16_clip_384.openai_ft_in12k_in1k", "mixer_b16_224"],
)
def test_images_are_prepared_as_timm_does_in_each_mode_of_its_crop(name: str, photos: list[Path]) -> None:
    data = resolve_data_config(pretrained_cfg=get_pretrained_cfg(name).to_dict())
    assert difference(of_timm(name=name), create_transform(**data, is_training=False), photos) < 1e-5


def test_what_we_cannot_prepare_is_of_no_weights_that_have_classes() -> None:
    """Where timm adds such weights, `Transform` has to say more."""
    configs = [get_pretrained_cfg(name) for name in timm.list_pretrained()]
    known = [config for config in configs if config.num_classes]
    assert len(known) > 1000
    odd = [c for c in known if c.crop_mode == "border" or c.input_size[0] != 3 or len({*c.input_size[1:]}) > 1]
    assert not odd, [f"{config.architecture}.{config.tag}" for config in odd]


# ---- classes ------------------------------------------------------------------------------------


def test_classes_have_the_names_that_the_library_gives_them() -> None:
    vision, of_resnet = zoo.load("torchvision/squeezenet1_1"), zoo.load("timm/test_resnet")
    assert vision.class_names == tuple(get_model_weights("squeezenet1_1").DEFAULT.meta["categories"])
    assert of_resnet.class_names == tuple(ImageNetInfo().label_descriptions())
    assert (vision.name, of_resnet.name) == ("torchvision/squeezenet1_1.IMAGENET1K_V1", "timm/test_resnet.r160_in1k")


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("mixer_b16_224.goog_in21k", 21843, "organism, being"),
        ("convnext_nano.in12k", 11821, "benthos"),
        ("mobilenetv3_large_100.miil_in21k", 11221, "benthos"),
        ("focalnet_large_fl3.ms_in22k", 21842, "tench, Tinca tinca"),
        ("vit_base_patch16_clip_224.openai", 512, None),
        ("mvitv2_base_cls.fb_inw21k", 19168, None),
    ],
)
def test_other_heads_have_their_own_names_or_none(name: str, count: int, first: str | None) -> None:
    given = of_timm(name=name)
    assert given.num_classes == count
    assert len(given.classes) == (count if first else 0)
    assert not first or given.classes[0] == first
    assert given.other_names is not None
    assert {len(names) for names in given.other_names()} == ({count} if first else set())


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "kind", "says"),
    [
        ("timm/vit_small_patch14_dinov2", InputError, "these weights give features and no classes"),
        ("torchvision/vgg16.IMAGENET1K_FEATURES", InputError, "these weights give features and no classes"),
        (
            "timm/test_resnet.nope",
            InputError,
            "timm has no pretrained weights for 'test_resnet.nope'; it has test_resnet",
        ),
        ("timm/test_resnett", UnknownNameError, "no timm model named 'test_resnett'; did you mean test_resnet"),
        ("torchvision/resnet18.V9", InputError, "torchvision/resnet18 has no weights 'V9'; it has IMAGENET1K_V1"),
        ("torchvision/resnet0", UnknownNameError, "no torchvision model named 'resnet0'; did you mean"),
        ("timm/test_vit3", ZooError, "the weights of timm/test_vit3: there is no such repository"),
        ("nowhere/test_vit", InputError, "no run folder 'nowhere/test_vit'"),
    ],
)
def test_what_cannot_be_used_is_one_line(word: str, kind: type[ZooError], says: str, photos: list[Path]) -> None:
    done = CliRunner().invoke(cli, ["predict", word, str(photos[0])], standalone_mode=False)
    assert isinstance(done.exception, kind)
    assert says in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_download_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, photos: list[Path]) -> None:
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies that it was made with
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    done = CliRunner().invoke(cli, ["predict", "torchvision/mnasnet0_5", str(photos[0])], standalone_mode=False)
    assert isinstance(done.exception, HubConnectionError)
    assert str(done.exception) == (
        "the weights of torchvision/mnasnet0_5 cannot be downloaded: Connection refused (tried "
        f"{get_model_weights('mnasnet0_5')['DEFAULT'].url} and the cache); check the network, or take others: a run, "
        "hf://OWNER/NAME, or weights that are on this machine"
    )
    assert "Downloading" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["package", "publish", "verify", "train --from"])
def test_commands_that_need_a_run_say_that_it_is_a_model(command: str) -> None:
    more = ["me/x"] if command == "publish" else []
    done = CliRunner().invoke(cli, [*command.split(), "timm/test_vit", *more], standalone_mode=False)
    assert "'timm/test_vit' is a model, not a run" in str(done.exception)
    if command == "package":
        with pytest.raises(InputError, match="'timm/test_vit' is a model, not a run"):
            zoo.package("timm/test_vit")


@pytest.mark.parametrize("root", ["runs", "."])
def test_a_run_of_that_name_comes_first(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: list[Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / root / "timm" / "test_vit").mkdir(parents=True)
    (folder / "run.toml").write_text("nonsense")
    for use in (lambda: zoo.load("timm/test_vit"), lambda: zoo.predict("timm/test_vit", photos[0])):
        with pytest.raises(RunError, match=r"run\.toml: damaged"):
            use()


# ---- every command ------------------------------------------------------------------------------


def sorted_photos(folder: Path, photos: list[Path], names: tuple[str, ...]) -> str:
    """A folder with the photos in turn in class folders of these names."""
    for number, path in enumerate(photos):
        place = folder / names[number % len(names)]
        place.mkdir(parents=True, exist_ok=True)
        (place / path.name).write_bytes(path.read_bytes())
    return f"folder:{folder}"


@pytest.fixture(scope="module")
def likely(photos: list[Path]) -> list[int]:
    """Two classes that timm's ViT gives to images here."""
    top = logits_of(inference_of(f"timm/{TIMMS[0]}"), photos).argmax(1).tolist()
    return [top[0], next(place for place in (*top, 0, 1) if place != top[0])]


@pytest.mark.parametrize("by", ["number", "description", "first name"])
def test_eval_matches_classes_by_any_of_their_names(
    by: str, tmp_path: Path, photos: list[Path], likely: list[int]
) -> None:
    info = ImageNetInfo()
    description = [info.label_descriptions()[place] for place in likely]
    names = {
        "number": [info.label_names()[place] for place in likely],
        "description": description,
        "first name": [text.partition(",")[0] for text in description],
    }[by]
    spec = sorted_photos(tmp_path / "photos", photos, tuple(names))
    theirs = logits_of(inference_of(f"timm/{TIMMS[0]}"), photos).argmax(1).tolist()
    correct = sum(place == likely[number % 2] for number, place in enumerate(theirs))
    assert correct
    found = zoo.evaluate("timm/test_vit", on=spec, device="cpu")
    assert (found.correct, found.count, found.num_classes) == (correct, len(photos), 1000)
    assert found.recorded is None
    assert found.verdict == f"measured on {spec}; nothing is recorded of timm/test_vit to compare with"
    assert by != "number" or zoo.evaluate("timm/test_vit", dataset=spec, device="cpu").correct == correct


def test_eval_compares_both_libraries_on_the_same_images(tmp_path: Path, photos: list[Path]) -> None:
    spec = sorted_photos(tmp_path / "photos", photos, ("n01440764", "n02102040"))
    found = zoo.compare("torchvision/squeezenet1_1", "timm/test_vit", on=spec, device="cpu", output=tmp_path / "out")
    assert found.comparison is not None
    assert (found.comparison.run, found.comparison.count) == ("timm/test_vit", len(photos))
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["run"] == "torchvision/squeezenet1_1"


def test_eval_says_which_images_it_needs_and_which_class_is_unknown(tmp_path: Path, photos: list[Path]) -> None:
    with pytest.raises(InputError, match=r"timm/test_vit is no run: no images of its own .* --on SPEC"):
        zoo.evaluate("timm/test_vit")
    spec = sorted_photos(tmp_path / "photos", photos, ("tench", "unicorn"))
    with pytest.raises(
        InputError, match=r"its class 'unicorn' is none of timm/test_vit\.r160_in1k's 1000: tench, gold"
    ):
        zoo.evaluate("timm/test_vit", on=spec)
    with pytest.raises(InputError, match="give one of them"):
        zoo.evaluate("timm/test_vit", on=spec, dataset=spec)


def test_predict_explains_and_prints_the_classes(tmp_path: Path, photos: list[Path]) -> None:
    words = ["predict", "timm/test_vit", str(photos[0]), "--json", "--explain", str(tmp_path)]
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    assert done.exception is None, done.exception
    row = json.loads(done.stdout)
    top = int(logits_of(inference_of(f"timm/{TIMMS[0]}"), photos[:1]).argmax())
    assert row["classes"][0]["name"] == ImageNetInfo().label_descriptions()[top]
    assert Path(row["explained"]["picture"]).is_file()


def test_serve_answers_as_predict(photos: list[Path]) -> None:
    best = zoo.predict("torchvision/squeezenet1_1", photos[0], top=2)[0].classes
    with zoo.serve("torchvision/squeezenet1_1", port=0, block=False, top=2) as server:
        request = urllib.request.Request(f"{server.url}predict", photos[0].read_bytes(), {"content-type": "image/png"})
        answer = json.load(urllib.request.urlopen(request, timeout=30))
    assert answer["model"] == "torchvision/squeezenet1_1.IMAGENET1K_V1"
    assert [one["name"] for one in answer["classes"]] == [one.name for one in best]
    assert [one["probability"] for one in answer["classes"]] == pytest.approx(
        [one.probability for one in best], abs=1e-6
    )


def test_export_names_the_weights_and_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["export", "timm/test_vit", "--format", "torch", "--json"], standalone_mode=False)
    assert done.exception is None, done.exception
    written = json.loads(done.stdout)
    assert written["path"] == "timm-test_vit.r160_in1k.pt2"
    assert written["metadata"]["zoo.weights"] == "timm/test_vit.r160_in1k"
    assert json.loads(written["metadata"]["zoo.classes"]) == ImageNetInfo().label_descriptions()
    assert written["agreement"]["largest"] < 1e-5


# ---- a stranger's namespace ---------------------------------------------------------------------


class Strange(nn.Module):
    """Three logits of the colours' means."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.mean((2, 3)))
        return logits


def strange(*, in_channels: int, height: int, width: int, num_classes: int, name: str) -> nn.Module:
    """Build it."""
    del in_channels, height, width, name
    return Strange(num_classes)


STATE = {"head.weight": torch.eye(3), "head.bias": torch.zeros(3)}
COLOURS = ("red", "green", "blue")


def strange_weights(*, name: str) -> Pretrained:
    """Weights of several kinds, by their name."""
    whole = Pretrained("strange:" + name, lambda **sizes: STATE, Transform(size=(8, 8)))
    return {
        "colours": whole._replace(classes=COLOURS),
        "numbered": whole._replace(num_classes=3),
        "of-four": whole._replace(num_classes=4),
        "half-named": whole._replace(num_classes=3, classes=COLOURS[:2]),
        "trained-on": whole,
        "unprepared": whole._replace(classes=COLOURS, transform=None),
    }[name]


@pytest.fixture
def strangers() -> Registry:
    """The catalogue with one more namespace."""
    registry = load_registry()
    component = Component(
        name="net",
        kind="classifier",
        factory=f"{__name__}:strange",
        pretrained=f"{__name__}:strange_weights",
        namespace="strange",
    )
    return msgspec.structs.replace(registry, components={**registry.components, "strange.net": component})


def red() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 9), (200, 10, 10)).save(stream, "PNG")
    return stream.getvalue()


def test_a_strangers_namespace_brings_weights_in_the_same_way(strangers: Registry) -> None:
    assert strangers.offers_weights("strange/colours")
    assert open_word("strange/colours", strangers).predict(red(), top=1)[0][0].name == "red"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        numbered = open_word("strange/numbered", strangers)
    assert [str(w.message) for w in said if issubclass(w.category, ZooWarning)] == [
        "strange:numbered has 3 outputs without known names, which are not always classes; they are numbered"
    ]
    assert (numbered.classes, numbered.predict(red())[0][0].name) == ((), "0")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("of-four", "do not fit its model: 2 of 2 tensors are missing or of another shape: head.weight, head.bias"),
        ("half-named", "names 2 of 3 classes"),
        ("trained-on", "does not say how many classes they tell apart"),
        ("unprepared", "does not say how images are brought to their size"),
    ],
)
def test_a_description_that_is_not_whole_is_refused(name: str, says: str, strangers: Registry) -> None:
    with pytest.raises(PluginError) as caught:
        library_weights(f"strange/{name}", strangers).open(strangers)
    assert says in str(caught.value)


def test_a_component_without_weights_offers_none(strangers: Registry) -> None:
    without: Any = msgspec.structs.replace(strangers.component("strange.net"), pretrained=None)
    assert not msgspec.structs.replace(strangers, components={"strange.net": without}).offers_weights("strange/colours")
    assert not strangers.offers_weights("strange")
    assert not strangers.offers_weights("hybrid-alt-1")
