"""One training by one competitor, in this process: what `side_by_side.py` starts, by turns.

    python benchmarks/peers.py JOB.json RESULT.json

The loops below follow, step by step, what each library's own script or the papers' code does (what is read
from the device at each step, what is logged, how images are loaded), at its best flags on a CPU.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import runpy
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CLASSES, SIDE = 10, 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
RATE = 1e-3
VIT = {"patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 3, "img_size": SIDE}
CROP = '[{ op = "flip", p = 0.5 }, { op = "crop", padding = 4 }]'


class Clock:
    """When an epoch began and each of its steps ended."""

    def __init__(self) -> None:
        self.epochs: list[list[float]] = []

    def begin(self) -> None:
        """An epoch begins."""
        self.epochs.append([time.perf_counter()])

    def tick(self) -> None:
        """A step was taken."""
        self.epochs[-1].append(time.perf_counter())

    def steady(self, batch: int) -> list[dict[str, float]]:
        """Of each epoch, the images per second after its first step, and with it."""
        return [_rates(batch, len(t) - 1, t[-1] - t[0], t[1] - t[0]) for t in self.epochs]


def _rates(batch: int, steps: int, seconds: float, first: float) -> dict[str, float]:
    after = batch * (steps - 1) / (seconds - first) if steps > 1 else batch / seconds
    return {"images_per_second": after, "with_first_step": batch * steps / seconds, "first_step_seconds": first}


# ---- ours ---------------------------------------------------------------------------------------


def zoo(job: SimpleNamespace) -> dict[str, Any]:
    """`zoo train`, with a clock that is asked before each step."""
    import zoo.cli
    import zoo.cli.train

    calls: list[float] = []

    class Asked(zoo.cli.train.StopRequests):
        def __call__(self) -> int:
            calls.append(time.perf_counter())
            return super().__call__()

    zoo.cli.train.StopRequests = Asked
    words = ["train", job.model, "--dataset", f"folder:{job.folder}", "--recipe", "mixture-vit"]
    words += ["--protocol", "paper", "--epochs", str(job.epochs), "--batch-size", str(job.batch_size)]
    words += ["--lr", str(RATE), "--device", job.device, "--precision", job.precision or "auto"]
    words += ["--output", f"{job.scratch}/run", "--seed", str(job.seed), "--quiet"]
    if not job.jitter:
        words += ["--set", f"recipe.augment={CROP}", "--set", "recipe.normalize=true"]
        words += ["--set", "recipe.weight_decay=0"]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            zoo.cli.main(words)
    except SystemExit as ended:  # as every command ends
        if ended.code:
            raise
    rows = [json.loads(line) for line in Path(job.scratch, "run", "metrics.jsonl").read_text().splitlines()]
    result = json.loads(Path(job.scratch, "run", "result.json").read_text())
    epochs, per = [], len(calls) // len(rows)
    for number, row in enumerate(rows):
        own = calls[number * per : (number + 1) * per]
        seconds = per * job.batch_size / row["images_per_second"]  # the trainer waited for the device
        epochs.append(_rates(job.batch_size, per, seconds, own[1] - own[0] if per > 1 else seconds))
    how = {"precision": result["precision"], "recipe": result["recipe"]}
    return {"epochs": epochs, "parameters": result["parameters"], "how": how}


# ---- timm ---------------------------------------------------------------------------------------


def timm_train(job: SimpleNamespace) -> dict[str, Any]:
    """timm's own train.py, run whole; its log says how fast it was."""
    script = Path(job.timm_train)
    script = script / "train.py" if script.is_dir() else script
    if (script.parent / "timm").is_dir():  # a checkout: its own library goes with its script
        sys.path.insert(0, str(script.parent))
    said: list[str] = []
    logging.getLogger("train").addHandler(_Keep(said))
    sys.argv = ["train.py", *_timm_words(job)]
    with contextlib.redirect_stdout(sys.stderr):
        runpy.run_path(str(script), run_name="__main__")
    import timm

    log = "\n".join(said)
    counts = re.search(r"param count:(\d+)", log)
    return {
        "epochs": _from_log(log, job.batch_size),
        "parameters": int(counts.group(1)) if counts else None,
        "how": {"timm": timm.__version__, "words": [w for w in sys.argv[1:] if not Path(w).is_absolute()]},
    }


class _Keep(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _from_log(log: str, batch: int) -> list[dict[str, float]]:
    """Rates of each epoch: the log's averages are over all steps, its first line is the first step."""
    line = r"Train: (\d+) \[ *(\d+)/(\d+) .*?, +([\d.]+)/s +\([\d.]+s, +([\d.]+)/s\)"
    found: dict[int, list[tuple[int, float, float]]] = {}
    for epoch, step, _, now, mean in re.findall(line, log):
        found.setdefault(int(epoch), []).append((int(step), float(now), float(mean)))
    return [
        _rates(batch, rows[-1][0] + 1, (rows[-1][0] + 1) * batch / rows[-1][2], batch / rows[0][1])
        for rows in found.values()
    ]


def _timm_words(job: SimpleNamespace) -> list[str]:
    """Options of train.py: the nearest that its flags allow, and nothing that only costs time."""
    if job.modules == "same" or job.model not in ("resnet18", "vit-cifar"):
        _register(job)
        model = ["--model", "zoo_model"]
    elif job.model == "vit-cifar":
        model = ["--model", "vit_tiny_patch16_224", "--model-kwargs", *(f"{k}={v}" for k, v in VIT.items())]
    else:
        model = ["--model", job.model]
    words = ["--data-dir", job.folder, "--val-split", "test", "--num-classes", str(CLASSES), *model]
    words += ["--input-size", "3", str(SIDE), str(SIDE), "--mean", *map(str, MEAN), "--std", *map(str, STD)]
    words += ["--batch-size", str(job.batch_size), "--workers", str(job.workers), "--device", job.device]
    words += ["--opt", "adam", "--opt-kwargs", "fused=True", "--lr", str(RATE), "--weight-decay", "0"]
    words += ["--epochs", str(job.epochs), "--warmup-epochs", "0", "--smoothing", "0", "--hflip", "0.5"]
    words += ["--color-jitter", "0", "--scale", "1", "1", "--ratio", "1", "1"]
    words += ["--train-interpolation", "bilinear", "--checkpoint-hist", "1", "--seed", str(job.seed)]
    words += ["--output", job.scratch, "--experiment", "run"]
    if job.precision == "bf16":
        words += ["--amp", "--amp-dtype", "bfloat16", "--channels-last"]
    return words + (["--pin-mem"] if job.device != "cpu" else [])


def _register(job: SimpleNamespace) -> None:
    from timm.models import register_model

    def zoo_model(pretrained: bool = False, **ignored: Any) -> Any:
        return build(job)

    zoo_model.__module__ = "timm.models.resnet"  # the registry files a model under its module
    register_model(zoo_model)


def timm_api(job: SimpleNamespace) -> dict[str, Any]:
    """The steps of timm's train.py over timm's own loader, optimizer and meters."""
    import torch
    from timm import utils
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2

    device, module, autocast = _prepared(job, torch)

    def loader(split: str, train: bool) -> Any:
        chosen = {"no_aug": False, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.5, "color_jitter": 0.0}
        return create_loader(
            create_dataset("", root=job.folder, split=split, is_training=train),
            input_size=(3, SIDE, SIDE),
            batch_size=job.batch_size,
            is_training=train,
            mean=MEAN,
            std=STD,
            num_workers=job.workers,
            device=device,
            pin_memory=device.type != "cpu",
            use_prefetcher=True,
            interpolation="bilinear",
            **(chosen if train else {}),
        )

    optimizer = create_optimizer_v2(module, opt="adam", lr=RATE, weight_decay=0.0, fused=True)
    losses = utils.AverageMeter()

    def after(loss: Any, logits: Any, targets: Any) -> None:
        losses.update(loss.item(), len(targets))

    clock = Clock()
    train, test = loader("train", True), loader("test", False)
    for _ in range(job.epochs):
        _epoch(clock, train, module, optimizer, job, autocast, after)
        _validate(test, module, job, autocast)
    return {"epochs": clock.steady(job.batch_size), "parameters": _count(module)}


# ---- torchvision, and the papers ----------------------------------------------------------------


def torchvision(job: SimpleNamespace) -> dict[str, Any]:
    """The steps of torchvision's references: ImageFolder, transforms on PIL images, loss and accuracy read."""
    import torch
    from torchvision import transforms as t
    from torchvision.datasets import ImageFolder

    device, module, autocast = _prepared(job, torch)
    finish = [t.PILToTensor(), t.ConvertImageDtype(torch.float), t.Normalize(MEAN, STD)]
    change = [t.RandomCrop(SIDE, padding=4), t.RandomHorizontalFlip(0.5)]
    loaders = [
        torch.utils.data.DataLoader(
            ImageFolder(f"{job.folder}/{split}", t.Compose([*steps, *finish])),
            batch_size=job.batch_size,
            shuffle=split == "train",
            num_workers=job.workers,
            pin_memory=device.type != "cpu",
        )
        for split, steps in (("train", change), ("test", []))
    ]
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE)
    read: list[float] = []

    def after(loss: Any, logits: Any, targets: Any) -> None:
        best = logits.topk(5, dim=1).indices == targets[:, None]
        read.extend((loss.item(), best[:, 0].float().mean().item(), best.any(1).float().mean().item()))

    clock = Clock()
    for _ in range(job.epochs):
        _epoch(clock, loaders[0], module, optimizer, job, autocast, after)
        _validate(loaders[1], module, job, autocast)
    return {"epochs": clock.steady(job.batch_size), "parameters": _count(module)}


def papers(job: SimpleNamespace) -> dict[str, Any]:
    """The loop of Mixture Models: arrays in memory, flip and ColorJitter on PIL images, fp32, Adam with L2.

    Source: `train` and `DataLoaders` of the repository that the paper names. Its loader has no workers;
    `workers` gives it some.
    """
    import numpy as np
    import torch
    from PIL import Image
    from torchvision import transforms as t

    class Arrays(torch.utils.data.Dataset):
        """As torchvision's CIFAR10: an array in memory, an image made of each row."""

        def __init__(self, split: str, change: Any) -> None:
            held = np.load(f"{job.folder}/{split}.npz")
            self.images, self.labels, self.change = held["images"], held["labels"].tolist(), change

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return self.change(Image.fromarray(self.images[index])), self.labels[index]

    _, module, autocast = _prepared(job, torch)
    jitter = [t.RandomHorizontalFlip(p=0.5), t.ColorJitter(brightness=0.5, hue=0.25)]
    change = [t.Compose([*jitter, t.ToTensor()]), t.ToTensor()]
    train, test = (
        torch.utils.data.DataLoader(
            Arrays(split, steps), batch_size=job.batch_size, shuffle=split == "train", num_workers=job.papers_workers
        )
        for split, steps in zip(("train", "test"), change, strict=True)
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE, weight_decay=1e-4)
    hits: list[Any] = []

    def after(loss: Any, logits: Any, targets: Any) -> None:
        hits.append(logits.max(1)[1].eq(targets).float().mean())

    clock = Clock()
    for _ in range(job.epochs):
        _epoch(clock, train, module, optimizer, job, autocast, after)
        torch.FloatTensor(hits).mean().item()
        hits.clear()
        _validate(test, module, job, autocast)
    return {"epochs": clock.steady(job.batch_size), "parameters": _count(module)}


# ---- what the three loops share -----------------------------------------------------------------


def build(job: SimpleNamespace) -> Any:
    """The module: ours ("same"), or the one that the competitor's users have ("own")."""
    start = time.perf_counter()
    if job.modules == "own" and job.model in ("resnet18", "vit-cifar"):
        return _own(job)
    from torch import nn

    import zoo
    import zoo.plugin.layers

    module = zoo.create(job.model, num_classes=CLASSES, image_size=SIDE)
    if job.modules == "own":  # the papers' code has torch's dropout
        for parent in list(module.modules()):
            for name, child in parent.named_children():
                if isinstance(child, zoo.plugin.layers.Dropout):
                    setattr(parent, name, nn.Dropout(child.p))
    job.adapter_seconds = time.perf_counter() - start
    return module


def _own(job: SimpleNamespace) -> Any:
    if job.model == "vit-cifar":
        import timm

        return timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, **VIT)
    if job.peer.startswith("timm"):
        import timm

        return timm.create_model(job.model, num_classes=CLASSES)
    import torchvision.models

    return getattr(torchvision.models, job.model)(num_classes=CLASSES)


def _prepared(job: SimpleNamespace, torch: Any) -> tuple[Any, Any, Callable[[], Any]]:
    device = torch.device(job.device)
    torch.manual_seed(job.seed)
    module = build(job).to(device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
    if job.precision != "bf16":
        return device, module, contextlib.nullcontext
    module = module.to(memory_format=torch.channels_last)
    return device, module, lambda: torch.autocast(device.type, dtype=torch.bfloat16)


def _epoch(
    clock: Clock,
    loader: Iterable[Any],
    module: Any,
    optimizer: Any,
    job: SimpleNamespace,
    autocast: Callable[[], Any],
    after: Callable[[Any, Any, Any], None],
) -> None:
    """One epoch as all of these scripts write it."""
    import torch

    module.train()
    clock.begin()
    for images, targets in loader:
        images, targets = images.to(job.device), targets.to(job.device)
        if job.precision == "bf16":
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast():
            logits = module(images)
            loss = torch.nn.functional.cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after(loss, logits, targets)
        clock.tick()
    if job.device != "cpu":
        torch.cuda.synchronize()
        clock.epochs[-1][-1] = time.perf_counter()


def _validate(loader: Iterable[Any], module: Any, job: SimpleNamespace, autocast: Callable[[], Any]) -> None:
    import torch

    module.eval()
    with torch.inference_mode():
        for images, targets in loader:
            with autocast():
                logits = module(images.to(job.device))
            logits.argmax(1).eq(targets.to(job.device)).float().mean().item()


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def main() -> None:
    """Run the job of a file, and write what came out."""
    given, wanted = map(Path, sys.argv[1:3])
    job = SimpleNamespace(**json.loads(given.read_text()), adapter_seconds=0.0)
    known = {"zoo": zoo, "timm-train": timm_train, "timm-api": timm_api, "torchvision": torchvision}
    found = {**known, "papers": papers}[job.peer](job)
    wanted.write_text(json.dumps({**found, "adapter_seconds": job.adapter_seconds}))


if __name__ == "__main__":
    main()
