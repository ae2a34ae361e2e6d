"""From a tree of components to a module: one recursive walk that checks before it builds.

A tree is first tried out on torch's `meta` device, where nothing takes memory: argument names and types
are checked against the factories' annotations, and every part is run once, so that a part that does
not keep its shape is named by its place in the TOML. What cannot be built or run there, since it looks at
the values of tensors, is tried out on the CPU within a limit of memory. Only then is the real module built.
"""

from __future__ import annotations

import contextlib
import inspect
import traceback
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from zoo.base.explain import explain
from zoo.base.memory import host_memory
from zoo.base.text import first_line, plural
from zoo.catalogue.describe import native_sizes
from zoo.catalogue.plugins import OURS, import_factory
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Model, Node
from zoo.errors import InputError, PluginError, ShapeError, UnknownNameError, ZooError
from zoo.models import tried
from zoo.models.arguments import changed_defaults
from zoo.models.backbones import described
from zoo.models.bounds import MAX_BYTES, MAX_PARAMETERS, LimitedMemory, MemoryLimitError, limited_numbers
from zoo.models.meta import WithoutValues
from zoo.models.precision import usual_torch
from zoo.models.tried import Findings, Shape
from zoo.plugin.contract import GIVEN, Component


def compose(
    node: Node,
    registry: Registry,
    *,
    in_channels: int = 3,
    height: int,
    width: int,
    num_classes: int,
    where: str = "build",
    limit: int = MAX_PARAMETERS,
) -> nn.Module:
    """Build a classifier from its tree.

    Returns:
        A module, (B, in_channels, height, width) floats to (B, num_classes) logits, in train mode,
        on torch's default device, initialised from torch's global generator.
    Raises:
        UnknownNameError: a component that no plugin offers. SpecError or InputError: a wrong
        argument. ShapeError: a size that a part cannot take or does not keep. PluginError: a
        factory that broke its contract. Each names the place in the tree.
    """
    sizes = {"in_channels": in_channels, "height": height, "width": width, "num_classes": num_classes}
    if min(sizes.values()) < 1:
        raise ShapeError(f"{where}: channels, height, width and classes must be at least 1, given {sizes}")
    if torch.get_default_device().type == "meta":
        module, _ = _tried(node, registry, where, sizes, _Limits(limit), run=False)
        return described(module.to("meta"), **sizes)
    _, findings = _tried(node, registry, where, sizes, _Limits(limit))
    module = _Composer(registry, probe=False, findings=findings).build(node, where, sizes, kinds=("classifier",))
    return described(module, **sizes)


def check(
    node: Node,
    registry: Registry,
    *,
    where: str = "build",
    limit: int = MAX_PARAMETERS,
    memory: int | None = None,
    **sizes: int,
) -> nn.Module:
    """Build the tree and run it once: every error, before the model itself takes memory.

    Args:
        memory: bytes that it may take where it must be tried out on the CPU; default: half of what is free,
            at most `MAX_BYTES`.
    Returns:
        The module, for counting: on the meta device, or on the CPU where it cannot be built or run there.
    """
    return _tried(node, registry, where, sizes, _Limits(limit, memory))[0]


class _Limits(NamedTuple):
    """What a tree may take while it is tried out: parameters, and bytes on the CPU."""

    parameters: int
    memory: int | None = None


def _tried(
    node: Node, registry: Registry, where: str, sizes: dict[str, int], limits: _Limits, run: bool = True
) -> tuple[nn.Module, Findings]:
    """The module on the meta device, else on the CPU, and what showed when it was run.

    Only a stranger's exception leads to the CPU: what this package itself found wrong is wrong there too.
    What showed when the same tree was tried out before is used again, see `zoo.models.tried`.
    The random generator is left as it was, whatever a factory does to it, and the types are those of a usual process,
    whatever the program has set in torch: files of weights are held against them.
    """
    kept = tried.place_of(node, registry, where, sizes)

    def tried_on(device: str, known: Findings | None = None) -> tuple[nn.Module, Findings]:
        composer = _Composer(registry, probe=run and known is None, findings=known)
        values = WithoutValues() if device == "meta" else contextlib.nullcontext()
        with torch.device(device), values, limited_numbers(limits.parameters, where):
            module = composer.try_out(node, where, sizes)
        if composer.probe and kept and device == "meta":
            tried.write(kept, composer.findings)
        return module, composer.findings

    with usual_torch(), torch.random.fork_rng(devices=[]):
        try:
            return tried_on("meta", tried.read(kept) if kept else None)
        except ZooError as error:
            if isinstance(error, PluginError) or not _of_a_stranger(error):
                raise
            on_meta = error
        memory = min(host_memory() // 2, MAX_BYTES) if limits.memory is None else limits.memory
        try:
            with LimitedMemory(memory, where):
                return tried_on("cpu")
        except MemoryLimitError as error:
            raise MemoryLimitError(f"{error}; on torch's meta device it fails: {on_meta}") from on_meta


def _of_a_stranger(error: BaseException) -> bool:
    """Whether an error began with an exception that is not this package's."""
    while error.__cause__ is not None:
        error = error.__cause__
    return not isinstance(error, ZooError)


def check_arguments(node: Node, registry: Registry, where: str = "build") -> None:
    """Refuse what is wrong for images of every size: unknown components and arguments, and values of a wrong type.

    Nothing is built, so that values which do not go together are not found.
    Raises:
        InputError: names the place in the tree and what is allowed.
    """
    composer = _Composer(registry, probe=False)
    for place, part in node.walk(where):
        component = composer._component(part, place, tuple(GIVEN))
        composer._arguments(part, import_factory(component.factory, part.use), component, place)


class _Composer:
    """One walk over one tree, on torch's default device; with `probe`, every built part is run."""

    def __init__(self, registry: Registry, *, probe: bool, findings: Findings | None = None) -> None:
        self.registry, self.probe = registry, probe
        self.findings = findings or Findings({}, set())

    def try_out(self, node: Node, where: str, sizes: dict[str, int]) -> nn.Module:
        """Build a classifier, and run it where the walk probes."""
        module = self.build(node, where, sizes, kinds=("classifier",))
        if self.probe:
            out = _shape_out(module, (sizes["in_channels"], sizes["height"], sizes["width"]), where)
            if out != (sizes["num_classes"],):
                raise ShapeError(
                    f"{where} ({node.use}): gives {out} for each image, expected ({sizes['num_classes']},)"
                )
        return module

    def build(self, node: Node, where: str, sizes: dict[str, int], kinds: Sequence[str]) -> nn.Module:
        component = self._component(node, where, kinds)
        label = f"{where} ({node.use})"
        factory = import_factory(component.factory, node.use)
        arguments = self._arguments(node, factory, component, where)
        if component.kind == "combinator":
            if not node.of:
                raise InputError(f"{label}: a combinator needs its parts: of = [{{ use = ... }}, ...]")
            arguments["parts"] = [self._builder(c, f"{where}.of[{i}]") for i, c in enumerate(node.of)]
        elif node.of:
            raise InputError(f"{label}: `of` is for combinators; this is a {component.kind}")
        module = _call(factory, {**sizes, **arguments}, label)
        if not isinstance(module, nn.Module):
            raise PluginError(f"{label}: its factory returned {type(module).__name__}, not a torch module")
        if component.kind == "stem":
            self._stem_shape(module, sizes, node, where)
        elif self.probe and component.kind in ("part", "combinator"):
            shape = (sizes["channels"], sizes["height"], sizes["width"])
            out = _shape_out(module, shape, label)
            if out != shape:
                raise ShapeError(f"{label}: a part must keep its shape; it makes {out} of {shape}")
            if _writes_to_its_input(module, shape):
                self.findings.writers.add(where)
        if where in self.findings.writers:
            module.register_forward_pre_hook(_copy_input)
        return module

    def _component(self, node: Node, where: str, kinds: Sequence[str]) -> Component:
        try:
            component = self.registry.component(node.use)
        except ZooError as error:
            raise InputError(f"{where}.use: {error}") from None
        if component.kind not in kinds:
            wanted = " or a ".join(kinds)
            raise InputError(f"{where}.use: {node.use!r} is a {component.kind}; expected a {wanted} here")
        return component

    def _arguments(self, node: Node, factory: Any, component: Component, where: str) -> dict[str, Any]:
        signature = inspect.signature(factory)
        given = GIVEN[component.kind]
        open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        allowed = [n for n, p in signature.parameters.items() if n not in given and p.kind is not p.VAR_KEYWORD]
        hints = _hints(factory)
        out = {}
        for key, value in node.args.items():
            if key in given or (key not in allowed and not open_ended):
                names = ", ".join(allowed) or "none"
                raise InputError(f"{where}: {node.use!r} takes no argument {key!r}; allowed: {names}")
            out[key] = self._value(value, hints.get(key), f"{where}.{key}")
        for key, value in changed_defaults(factory, node.defaults).items():
            if key in allowed and key not in out:
                with contextlib.suppress(InputError):  # of another type now: the recorded value is no choice any more
                    out[key] = self._value(value, hints.get(key), f"{where}.{key}")
        missing = [n for n in allowed if n not in out and signature.parameters[n].default is inspect.Parameter.empty]
        if missing:
            raise InputError(f"{where}: {node.use!r} needs the argument {missing[0]!r}")
        return out

    def _value(self, value: Any, hint: Any, where: str) -> Any:
        if isinstance(value, Node):
            return self._builder(value, where)
        if isinstance(value, list) and any(isinstance(v, Node) for v in value):
            return [self._value(v, None, f"{where}[{i}]") for i, v in enumerate(value)]
        if hint is None:
            return value
        try:
            return msgspec.convert(value, hint, strict=True)
        except msgspec.ValidationError as error:
            raise InputError(explain(error, hint, value, where)) from None
        except TypeError:
            return value  # an annotation that msgspec does not know says nothing about TOML values

    def _builder(self, node: Node, where: str) -> Callable[..., nn.Module]:
        def build(**sizes: int) -> nn.Module:
            kinds = {
                ("channels", "height", "width"): ("part", "combinator"),
                ("height", "in_channels", "width"): ("stem",),
                ("height", "in_channels", "num_classes", "width"): ("head", "classifier"),
            }.get(tuple(sorted(sizes)))
            if kinds is None:
                raise PluginError(f"{where}: a child was built with {sorted(sizes)}: see the plugin contract")
            return self.build(node, where, sizes, kinds)

        return build

    def _stem_shape(self, module: nn.Module, sizes: dict[str, int], node: Node, where: str) -> None:
        if hasattr(module, "out_shape"):
            return
        key = (where, tuple(sizes.values()))
        if key not in self.findings.shapes:
            out = _shape_out(module, (sizes["in_channels"], sizes["height"], sizes["width"]), f"{where} ({node.use})")
            if len(out) != 3:
                raise ShapeError(f"{where} ({node.use}): a stem must give (C, H, W) for each image; it gives {out}")
            self.findings.shapes[key] = out
        module.out_shape = self.findings.shapes[key]  # type: ignore[assignment]


def _call(factory: Any, arguments: dict[str, Any], label: str) -> Any:
    try:
        return factory(**arguments)
    except ShapeError as error:
        raise ShapeError(_placed(label, error)) from error
    except UnknownNameError as error:
        raise InputError(_placed(label, error)) from error  # the name alone does not say whose it is
    except ZooError:
        raise
    except ModuleNotFoundError as error:
        needed = f"install the package that provides the module {error.name}"
        raise PluginError(f"{label}: its factory cannot import {error.name}; {needed}") from error
    except (Exception, SystemExit) as error:  # a factory that exits would end the command without a word
        raise InputError(f"{_placed(label, error)} ({_raised(error)})") from error


def _raised(error: BaseException) -> str:
    """The type of a stranger's exception, and the line of the code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}; --debug shows the traceback"


def _placed(label: str, error: BaseException) -> str:
    """The error's first line, after the place in the tree, unless it names a deeper place itself."""
    text = first_line(error, None)
    root = label.partition(" ")[0]
    return text if text.startswith(root) else f"{label}: {text}"


def _shape_out(module: nn.Module, shape: Shape, label: str) -> tuple[int, ...]:
    """The shape of the output for one image, without the batch axis, by a run on torch's default device."""
    training = module.training
    try:
        with torch.no_grad():
            out = module.eval()(torch.randn(2, *shape))
    except MemoryLimitError:
        raise
    except ZooError as error:
        raise ShapeError(_placed(label, error)) from error
    except (Exception, SystemExit) as error:
        channels, height, width = shape
        what = f"cannot take {plural(channels, 'channel')} of {height}x{width}"
        raise ShapeError(f"{label}: {what}: {first_line(error, None)}") from error
    finally:
        module.train(training)
    if not isinstance(out, Tensor) or out.ndim < 1 or out.shape[0] != 2:
        raise PluginError(f"{label}: must return one tensor with the batch as its first axis")
    return tuple(out.shape[1:])


def _writes_to_its_input(module: nn.Module, shape: Shape) -> bool:
    """Whether the module writes to its input in place, in evaluation or in training mode."""
    training = module.training
    try:
        for mode in (False, True):
            with torch.inference_mode(False), torch.no_grad():  # tensors of inference count no changes
                image = torch.randn(2, *shape)
                version = image._version
                with contextlib.suppress(Exception):  # what cannot be trained is found later
                    module.train(mode)(image)
                if image._version != version:
                    return True
    finally:
        module.train(training)
    return False


def _copy_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Before a module that writes to its input: whoever made the input, or reads it too, keeps it as it was."""
    return (args[0].clone(), *args[1:]) if args else args


def copies_its_input(module: nn.Module) -> bool:
    """Whether the module, or one inside it, was seen writing to its input, and is given copies of it."""
    return any(_copy_input in m._forward_pre_hooks.values() for m in module.modules())


def _hints(factory: Any) -> dict[str, Any]:
    target = factory.__init__ if inspect.isclass(factory) else factory
    try:
        return typing.get_type_hints(target)
    except (NameError, TypeError):
        return {}


def sizes_for(
    model: Model,
    registry: Registry,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
) -> dict[str, int]:
    """The sizes to compose with: what is given, else those of the model's own dataset.

    Raises:
        InputError: two plugins claim the dataset whose sizes are needed, or the recipe that scales its images.
    """
    if image_size is None and model.recipe in registry.recipes:
        registry.recipe(model.recipe)
    if None in (image_size, num_classes, in_channels) and model.dataset in registry.datasets:
        registry.dataset(model.dataset)
    sizes = native_sizes(model, registry)
    if image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        sizes |= {"height": height, "width": width}
    chosen = {"num_classes": num_classes, "in_channels": in_channels}
    return sizes | {key: value for key, value in chosen.items() if value is not None}


def place(registry: Registry, name: str) -> str:
    """Where a model's tree stands, for messages: its file, unless that is the built-in one, and the key."""
    origin = registry.origins.get(("model", name))
    file = "" if origin is None or origin.distribution == OURS else f"{origin.file}: "
    return f"{file}models.{name}.build"
