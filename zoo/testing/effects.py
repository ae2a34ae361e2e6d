"""Checks of side effects: what a component does besides building a module and returning an output."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch

from zoo.models.compose import copies_its_input
from zoo.testing.subject import Failed, Subject

WRITES = (
    "changes its input in place: where several parts read one input, the others would read the changed one; "
    "begin without inplace=True, or with a copy"
)


def check_input(subject: Subject) -> str:
    """The images that the module is given are the same afterwards, in training and in evaluation mode."""
    images = subject.images(2)
    if subject.name in subject.registry.components and copies_its_input(subject.build()):
        raise Failed(WRITES)
    for mode in (True, False):
        module, given = subject.build().train(mode), images.clone()
        with torch.no_grad():
            module(given)
        if not torch.equal(given, images):
            raise Failed(WRITES)
    return ""


def check_seed(subject: Subject) -> str:
    """The weights are a function of torch's seed, and no random generator is set to a state of its own."""
    with _kept_generators():
        first, second, again = _seeded(subject, 1, 1), _seeded(subject, 2, 2), _seeded(subject, 1, 2)
    for generator in GENERATORS:
        for when in ("built", "run"):
            if first.states[when, generator.name] == second.states[when, generator.name]:
                raise Failed(
                    f"sets the state of {generator.name} while it is {when}: all that follows is then alike for every "
                    "seed; use a torch.Generator of its own"
                )
    other = [name for name, tensor in first.weights.items() if not torch.equal(tensor, again.weights[name])]
    if other:
        raise Failed(
            f"{other[0]} differs from one build to the next with the same seed of torch: draw from torch's generator"
        )
    return "weights are a function of the seed"


def check_output(subject: Subject) -> str:
    """Nothing is printed to stdout, which is for a command's result."""
    with printed() as built:
        module = subject.build()
    with printed() as run:
        for mode in (True, False):
            module.train(mode)(subject.images(2))
    for lines, when in ((run, "run"), (built, "built")):  # building runs it once too
        if lines:
            raise Failed(
                f"prints to stdout while it is {when} ({lines[0][:60]!r}): stdout is for a command's result; "
                "use warnings or logging"
            )
    return ""


def check_settings(subject: Subject) -> str:
    """Torch's settings for the whole process are left as they are, also when the code is imported."""
    component = subject.registry.components.get(subject.name)
    if component and (changed := changed_by_import(component.factory.partition(":")[0])):
        raise Failed(f"changes {changed} for the whole process when it is imported: other models run with it too")
    before = [setting.read() for setting in SETTINGS]
    try:
        for setting in SETTINGS:
            setting.write(setting.usual)
        subject.build()(subject.images(2)).float().sum().backward()
        for setting in SETTINGS:
            if setting.read() != setting.usual:
                raise Failed(
                    f"changes {setting.name} for the whole process, to {setting.read()}: other models run with it too"
                )
    finally:
        for setting, value in zip(SETTINGS, before, strict=True):
            setting.write(value)
    return ""


# ---- random generators ------------------------------------------------------------------------


class Generator(NamedTuple):
    """A random generator of the whole process."""

    name: str
    seed: Callable[[int], Any]
    read: Callable[[], Any]
    write: Callable[[Any], Any]

    def state(self) -> str:
        """Its state, to be compared."""
        state = self.read()
        return repr(state.tolist() if isinstance(state, torch.Tensor) else _plain(state))


def _plain(state: Any) -> Any:
    return [part.tolist() if isinstance(part, np.ndarray) else part for part in state]


GENERATORS = (
    Generator("torch's random generator", torch.manual_seed, torch.get_rng_state, torch.set_rng_state),
    Generator("Python's random generator", random.seed, random.getstate, random.setstate),
    Generator("numpy's random generator", np.random.seed, np.random.get_state, np.random.set_state),
)


class Seeded(NamedTuple):
    """Weights of a module, and the states of the generators after it was built and after it was run."""

    weights: dict[str, torch.Tensor]
    states: dict[tuple[str, str], str]


def _seeded(subject: Subject, seed: int, others: int) -> Seeded:
    def sow() -> None:
        for generator, number in zip(GENERATORS, (seed, others, others), strict=True):
            generator.seed(number)

    sow()
    module = subject.build(seed=seed)
    weights = {name: value.detach().clone() for name, value in module.state_dict().items() if torch.is_tensor(value)}
    states = {("built", generator.name): generator.state() for generator in GENERATORS}
    sow()
    with torch.no_grad():
        module(subject.images(2))
    return Seeded(weights, states | {("run", generator.name): generator.state() for generator in GENERATORS})


@contextlib.contextmanager
def _kept_generators() -> Iterator[None]:
    states = [generator.read() for generator in GENERATORS]
    try:
        yield
    finally:
        for generator, state in zip(GENERATORS, states, strict=True):
            generator.write(state)


# ---- stdout -----------------------------------------------------------------------------------


@contextlib.contextmanager
def printed() -> Iterator[list[str]]:
    """Catch what is printed to stdout, by Python or past it; the list holds its lines afterwards."""
    lines: list[str] = []
    text = io.StringIO()
    with tempfile.TemporaryFile() as file, contextlib.redirect_stdout(text):
        with _descriptor_1_into(file.fileno()):
            yield lines
        file.seek(0)
        lines += [*text.getvalue().splitlines(), *file.read().decode(errors="replace").splitlines()]


@contextlib.contextmanager
def _descriptor_1_into(target: int) -> Iterator[None]:
    try:
        before = os.dup(1)
    except OSError:  # stdout is closed
        yield
        return
    if sys.__stdout__ is not None:
        sys.__stdout__.flush()
    os.dup2(target, 1)
    try:
        yield
    finally:
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()
        os.dup2(before, 1)
        os.close(before)


# ---- settings ---------------------------------------------------------------------------------


class Setting(NamedTuple):
    """A setting of torch for the whole process; `usual` is what it has before the check."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    usual: Any


def _set_benchmark(value: bool) -> None:
    torch.backends.cudnn.benchmark = value


SETTINGS = (
    Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    Setting("gradients' being computed", torch.is_grad_enabled, torch.set_grad_enabled, True),
    Setting("the number of threads", torch.get_num_threads, torch.set_num_threads, 3),
    Setting(
        "deterministic algorithms",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
        False,
    ),
    Setting(
        "the precision of float32 matrix products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
        "highest",
    ),
    Setting("cudnn.benchmark", lambda: torch.backends.cudnn.benchmark, _set_benchmark, False),
    Setting("anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly, False),
)


@functools.cache
def changed_by_import(module: str) -> str:
    """The first setting that importing a module changes, found in a process of its own; "" where it changes none."""
    code = "import sys; sys.path[:] = sys.argv[2:]; from zoo.testing.effects import say_what_an_import_changes as say"
    command = [sys.executable, "-c", f"{code}; say(sys.argv[1])", module, *sys.path]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    _, mark, found = done.stdout.rpartition(CHANGED)  # before it stands what the module prints
    return found.partition("\n")[0].strip() if mark else ""  # behind it, what the module prints at its end


def say_what_an_import_changes(module: str) -> None:
    """Import a module, and print what `changed_by_import` returns."""
    for setting in SETTINGS:
        setting.write(setting.usual)
    import_module(module)
    changed = [setting.name for setting in SETTINGS if setting.read() != setting.usual]
    print(CHANGED, *changed[:1])


CHANGED = "changed by the import:"
"""Begins what the process that imports a module says."""

CHECKS = (("input", check_input), ("seed", check_seed), ("output", check_output), ("settings", check_settings))
"""Name and function of every check of a side effect, in order."""
