"""Checks of modules, each a function of a subject that raises `Failed` or returns a note."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base.text import plural
from zoo.catalogue.spec import Node
from zoo.models.compose import compose
from zoo.testing.subject import Failed, Skipped, Subject

BATCH = 8
RATES = (1e-3, 1e-2, 1e-4)
STEPS = 120
FOLLOW = ("part", "combinator", "head")
"""Kinds of components that are given what another one made: under autocast, that is often bfloat16."""

LARGE = 30_000_000
"""Parameters beyond which training a module here would take minutes."""


def check_shapes(subject: Subject) -> str:
    """(B, classes) logits at every size that it takes; one that it does not take is refused by a ShapeError."""
    taken = subject.chosen[1]
    for sizes in taken:
        module = subject.build(sizes)
        with torch.no_grad():
            out = module(subject.images(2, sizes))
        if tuple(out.shape) != (2, sizes.num_classes):
            raise Failed(f"{sizes}: gives {tuple(out.shape)}, expected (2, {sizes.num_classes})")
    refused = [str(s) for s in subject.sizes if s not in taken]
    return f"takes {', '.join(map(str, taken))}" + (f"; refuses {', '.join(refused)}" if refused else "")


def check_finite(subject: Subject) -> str:
    """Forward and backward are finite, and every parameter gets a gradient, at one size at least."""
    module, images = subject.build(), subject.images(4)
    loss = F.cross_entropy(module(images), _labels(subject, 4))
    loss.backward()
    _require_finite("the loss", loss)
    without = _without_gradient(module)
    for sizes in subject.chosen[1] if without else ():  # a second stage may have a single window at a small size
        other = subject.build(sizes)
        other(subject.images(2, sizes)).square().mean().backward()
        elsewhere = set(_without_gradient(other))
        without = [name for name in without if name in elsewhere]
    if without:
        raise Failed(f"no gradient reaches {_few(without)}: it is not used in forward")
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            _require_finite(f"the gradient of {name}", parameter.grad)
    return f"loss {loss.item():.3f}"


def _without_gradient(module: nn.Module) -> list[str]:
    return [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]


def check_parameters(subject: Subject) -> str:
    """The count is the same for every seed and on the meta device, and the declared one."""
    sizes = subject.chosen[1][0]
    with torch.device("meta"):
        meta = _count(subject.build(sizes))
    counts = {meta, _count(subject.build(sizes, seed=1)), _count(subject.build(sizes, seed=2))}
    if len(counts) > 1:
        raise Failed(f"the number of parameters changes from one build to the next: {sorted(counts)}")
    if subject.declared is not None and sizes == subject.sizes[0] and meta != subject.declared:
        raise Failed(f"registry.toml declares {subject.declared:,} parameters, it has {meta:,}")
    return f"{meta:,} at {sizes}" + (" as declared" if subject.declared else "")


def check_parts(subject: Subject) -> str:
    """A combinator is made of all of its parts: with another one in the place of any, it has other parameters."""
    body, sizes = subject.chosen[0].args.get("body"), subject.smallest._asdict()
    if not isinstance(body, Node) or body.use != subject.name:
        raise Skipped("it is tried inside of other components")
    count = len(body.of)

    def parameters(changed: int | None) -> int:
        parts = [Node(use="cnn.residual", args={"widths": [5 if i == changed else 4]}) for i in range(count)]
        tree = Node(use="hybrid.classifier", args={"body": Node(use=body.use, args=body.args, of=tuple(parts))})
        with torch.device("meta"):
            return _count(compose(tree, subject.registry, where=subject.name, **sizes))

    usual = parameters(None)
    for number in range(count):
        if parameters(number) == usual:
            raise Failed(f"passes over of[{number}]: the model is the same with another part in its place")
    return plural(count, "part")


def check_safetensors(subject: Subject) -> str:
    """Weights go through a safetensors file into a module of another seed, and the output is the same.

    First as they are built, then after two steps of training: a running mean may have changed that no file keeps.
    """
    module, images = subject.build(), subject.images(2)
    for when in ("", " a training"):
        other = _loaded(subject, module)
        with torch.no_grad():
            if not torch.equal(module.eval()(images), other(images)):
                after = f"saving and loading{when and f' after{when}'}"
                raise Failed(f"the output differs after {after}: something is not in the state dict")
        if not when:
            _steps(subject, module.train(), torch.optim.SGD(module.parameters(), 1e-3), range(2))
    return plural(len(module.state_dict()), "tensor")


def _loaded(subject: Subject, module: nn.Module) -> nn.Module:
    """A module of another seed with the weights of this one, out of a file; one tensor may have two names."""
    from safetensors.torch import load, save

    other = subject.build(seed=7).eval()
    other.load_state_dict(load(save({k: v.clone().contiguous() for k, v in module.state_dict().items()})), strict=True)
    return other


def check_independence(subject: Subject) -> str:
    """In eval mode an image's logits do not depend on its neighbours in the batch, and repeat."""
    module, images = subject.evaluated(), subject.images(4)
    with torch.no_grad():
        together, again = module(images), module(images)
        alone = torch.cat([module(image[None]) for image in images])
    if not torch.equal(together, again):
        raise Failed("two runs on the same images differ in eval mode")
    gap = (together - alone).abs().max().item()
    if not gap <= 1e-4 * max(1.0, together.abs().max().item()):
        raise Failed(f"logits change by {gap:.2g} with the other images of the batch")
    return f"largest difference {gap:.1g}"


def check_bf16(subject: Subject) -> str:
    """Forward and backward under bfloat16 autocast are finite; what follows other parts is given bfloat16, too."""
    component = subject.registry.components.get(subject.name)
    types = (torch.float32, torch.bfloat16) if component and component.kind in FOLLOW else (torch.float32,)
    for dtype in types:
        module = subject.build()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(module(subject.images(4).to(dtype)).float(), _labels(subject, 4))
        loss.backward()
        _require_finite("the loss in bfloat16", loss)
    return f"loss {loss.item():.3f}"


def check_channels_last(subject: Subject) -> str:
    """In the channels-last memory layout, which training chooses where it is quicker, the logits are the same."""
    module, images = subject.evaluated(), subject.images(2)
    with torch.no_grad():
        expected = module(images)
    module = module.to(memory_format=torch.channels_last)
    out = module(images.contiguous(memory_format=torch.channels_last))
    _require_close("channels-last", out.detach(), expected)
    out.sum().backward()
    return ""


def check_compile(subject: Subject) -> str:
    """torch.compile traces it (without generating machine code), and the logits are the same."""
    module, images = subject.evaluated(), subject.images(2)
    torch._dynamo.reset()
    try:
        compiled = torch.compile(module, backend="aot_eager")
        with torch.no_grad():
            _require_close("compiled", compiled(images), module(images))
    finally:
        torch._dynamo.reset()
    return ""


def check_export(subject: Subject) -> str:
    """torch.export takes it, and the exported program gives the same logits."""
    module, images = subject.evaluated(), subject.images(2)
    with torch.no_grad():
        exported = torch.export.export(module, (images,)).module()
        _require_close("exported", exported(images), module(images))
    return ""


def check_overfits(subject: Subject) -> str:
    """Adam learns one batch of noise by heart: the loss falls to a fifth and every label is right."""
    _refuse_large(subject)
    best = math.inf
    for rate in RATES:
        module, images, labels = subject.build(), subject.images(BATCH), _labels(subject, BATCH)
        optimizer = torch.optim.Adam(module.parameters(), rate)
        for step in range(STEPS):
            out = module(images)
            loss = F.cross_entropy(out, labels)
            best = min(best, loss.item())
            if loss.item() < 0.2 * math.log(subject.smallest.num_classes) and _all_right(out, labels):
                return f"in {plural(step, 'step')} at lr {rate:g}"
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    raise Failed(f"{STEPS} steps of Adam on {BATCH} images bring the loss to {best:.3f} only")


def check_resume(subject: Subject) -> str:
    """Four steps, and two with two more after saving and loading, end in the same weights to the bit."""
    _refuse_large(subject)
    whole = subject.build()
    optimizer = torch.optim.Adam(whole.parameters(), 1e-3)
    _steps(subject, whole, optimizer, range(2))
    saved = {key: value.clone() for key, value in whole.state_dict().items()}
    resumed = subject.build(seed=9)
    moments = torch.optim.Adam(resumed.parameters(), 1e-3)
    resumed.load_state_dict(saved)
    moments.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # loading keeps the very tensors
    _steps(subject, whole, optimizer, range(2, 4))
    _steps(subject, resumed, moments, range(2, 4))
    other = [k for k, v in whole.state_dict().items() if not torch.equal(v, resumed.state_dict()[k])]
    if other:
        raise Failed(f"{_few(other)} differs after resuming: what steps depend on is not in the state dict")
    return "bit-equal after 2 + 2 steps"


CHECKS = (
    ("shapes", check_shapes),
    ("finite", check_finite),
    ("parameters", check_parameters),
    ("safetensors", check_safetensors),
    ("independence", check_independence),
    ("bf16", check_bf16),
    ("channels-last", check_channels_last),
    ("compile", check_compile),
    ("export", check_export),
    ("overfits", check_overfits),
    ("resume", check_resume),
)
"""Name and function of every check, in order."""


def _steps(subject: Subject, module: nn.Module, optimizer: torch.optim.Optimizer, which: range) -> None:
    for step in which:
        torch.manual_seed(step)  # as a run has it: what a step draws is a function of the step
        loss = F.cross_entropy(module(subject.images(4, seed=step)), _labels(subject, 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _labels(subject: Subject, count: int) -> Tensor:
    return torch.arange(count) % subject.smallest.num_classes


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _all_right(out: Tensor, labels: Tensor) -> bool:
    return bool((out.argmax(1) == labels).all())


def _require_finite(what: str, tensor: Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise Failed(f"{what} is not finite")


def _require_close(what: str, out: Tensor, expected: Tensor) -> None:
    gap = (out - expected).abs().max().item()
    if not gap <= 1e-3 * max(1.0, expected.abs().max().item()):
        raise Failed(f"{what}, the logits differ by {gap:.2g}")


def _refuse_large(subject: Subject) -> None:
    with torch.device("meta"):
        count = _count(subject.build())
    if count > LARGE:
        raise Skipped(f"{count:,} parameters: training it would take minutes")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
