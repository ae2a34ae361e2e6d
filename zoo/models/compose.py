"""From a tree of components to a module: one recursive walk that checks before it builds.

A tree is first built on torch's `meta` device, where nothing takes memory: argument names and types
are checked against the factories' annotations, and every part is run once, so that a part that does
not keep its shape is named by its place in the TOML. Only then is the real module built.
"""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from zoo.base.explain import explain
from zoo.base.text import first_line, plural
from zoo.catalogue.plugins import OURS, import_factory
from zoo.catalogue.registry import Registry, find_model, native_sizes
from zoo.catalogue.spec import Model, Node
from zoo.errors import InputError, PluginError, ShapeError, ZooError
from zoo.plugin.contract import Component

Shape = tuple[int, int, int]

GIVEN = MappingProxyType(
    {
        "classifier": ("in_channels", "height", "width", "num_classes"),
        "head": ("in_channels", "height", "width", "num_classes"),
        "part": ("channels", "height", "width"),
        "combinator": ("parts", "channels", "height", "width"),
        "stem": ("in_channels", "height", "width"),
    }
)
"""What compose gives to a factory of each kind, besides the arguments in the tree."""

MAX_TENSORS = 20_000
MAX_PARAMETERS = 4_000_000_000
"""Larger models are refused before memory is taken, unless `limit` says otherwise."""


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
    if torch.get_default_device().type != "meta":
        check(node, registry, where=where, limit=limit, **sizes)
    return _Composer(registry, probe=False).build(node, where, sizes, kinds=("classifier",))


def check(
    node: Node, registry: Registry, *, where: str = "build", limit: int = MAX_PARAMETERS, **sizes: int
) -> nn.Module:
    """Build the tree on the meta device and run it once there: every error, and no memory.

    Returns:
        The module on the meta device, for counting.
    """
    with torch.device("meta"), _bounded(limit, where):
        module = _Composer(registry, probe=True).build(node, where, sizes, kinds=("classifier",))
    out = _shape_out(module, (sizes["in_channels"], sizes["height"], sizes["width"]), where)
    if out != (sizes["num_classes"],):
        raise ShapeError(
            f"{where} ({node.use}): gives {out} for each image, expected ({sizes['num_classes']},)"
        )
    return module


@contextlib.contextmanager
def _bounded(limit: int, where: str) -> Iterator[None]:
    """Refuse a model while it is being built: too many parameters, tensors or modules.

    A depth of a billion takes no memory on the meta device, but would take for ever.
    """
    numbers = {"parameters": 0, "parameter tensors": 0, "modules": 0}
    limits = {"parameters": limit, "parameter tensors": MAX_TENSORS, "modules": MAX_TENSORS}

    def count(**more: int) -> None:
        for what, number in more.items():
            what = what.replace("_", " ")
            numbers[what] += number
            if numbers[what] > limits[what]:
                raise InputError(
                    f"{where}: has more than {limits[what]:,} {what}; this is probably a mistake in the sizes"
                )

    hooks = (
        register_module_parameter_registration_hook(
            lambda module, name, value: (
                count(parameters=value.numel(), parameter_tensors=1) if value is not None else None
            )
        ),
        register_module_module_registration_hook(lambda module, name, child: count(modules=1)),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
    """One walk over one tree; with `probe`, every built part is run on the meta device."""

    def __init__(self, registry: Registry, *, probe: bool) -> None:
        self.registry, self.probe = registry, probe

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
        allowed = [
            n for n, p in signature.parameters.items() if n not in given and p.kind is not p.VAR_KEYWORD
        ]
        hints = _hints(factory)
        out = {}
        for key, value in node.args.items():
            if key in given or (key not in allowed and not open_ended):
                names = ", ".join(allowed) or "none"
                raise InputError(f"{where}: {node.use!r} takes no argument {key!r}; allowed: {names}")
            out[key] = self._value(value, hints.get(key), f"{where}.{key}")
        missing = [
            n for n in allowed if n not in out and signature.parameters[n].default is inspect.Parameter.empty
        ]
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
        if not self.probe:  # shapes show on the meta device only
            with torch.device("meta"):
                twin = _Composer(self.registry, probe=True).build(node, where, sizes, ("stem",))
            module.out_shape = twin.out_shape
            return
        shape = (sizes["in_channels"], sizes["height"], sizes["width"])
        out = _shape_out(module, shape, f"{where} ({node.use})")
        if len(out) != 3:
            raise ShapeError(
                f"{where} ({node.use}): a stem must give (C, H, W) for each image; it gives {out}"
            )
        module.out_shape = out  # type: ignore[assignment]


def _call(factory: Any, arguments: dict[str, Any], label: str) -> Any:
    try:
        return factory(**arguments)
    except ShapeError as error:
        raise ShapeError(_placed(label, error)) from error
    except ZooError:
        raise
    except Exception as error:
        raise InputError(_placed(label, error)) from error


def _placed(label: str, error: Exception) -> str:
    """The error's first line, after the place in the tree, unless it names a deeper place itself."""
    text = first_line(error, None)
    root = label.partition(" ")[0]
    return text if text.startswith(root) else f"{label}: {text}"


def _shape_out(module: nn.Module, shape: Shape, label: str) -> tuple[int, ...]:
    """The shape of the output for one image, without the batch axis, by a run on the meta device."""
    training = module.training
    try:
        with torch.no_grad():
            out = module.eval()(torch.empty(2, *shape, device="meta"))
    except ZooError as error:
        raise ShapeError(_placed(label, error)) from error
    except Exception as error:
        channels, height, width = shape
        what = f"cannot take {plural(channels, 'channel')} of {height}x{width}"
        raise ShapeError(f"{label}: {what}: {first_line(error, None)}") from error
    finally:
        module.train(training)
    if not isinstance(out, Tensor) or out.ndim < 1 or out.shape[0] != 2:
        raise PluginError(f"{label}: must return one tensor with the batch as its first axis")
    return tuple(out.shape[1:])


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
    """The sizes to compose with: what is given, else those of the model's own dataset."""
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


def create(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
) -> nn.Module:
    """Build a model of the catalogue with fresh weights.

    Args:
        name: as in `zoo list`, "timm/NAME", "torchvision/NAME", or "FILE.toml#name".
        num_classes: default: those of the model's own dataset.
        image_size: side, or (height, width), in pixels; default: its own dataset's.
        in_channels: default: 3.
    Returns:
        A module, (B, in_channels, height, width) floats to (B, num_classes) logits, in train mode.
    Raises:
        UnknownNameError: no such model. Else as `compose`.
    """
    registry, name, model = find_model(name)
    sizes = sizes_for(
        model, registry, num_classes=num_classes, image_size=image_size, in_channels=in_channels
    )
    return compose(model.build, registry, where=place(registry, name), **sizes)
