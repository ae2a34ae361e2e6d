"""Several optimizers as one, each with its own parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from zoo.train.optim.without_compiler import WithoutCompiler


class Several(WithoutCompiler):
    """Steps all of its parts; their groups and state are numbered as those of one optimizer.

    Attributes:
        parts: the optimizers. param_groups: all groups of the parts, the same objects.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        """Join the parts; no parameter may be in two of them."""
        self.parts = tuple(parts)
        groups = [group for part in self.parts for group in part.param_groups]
        super().__init__(groups, {"fused": all(part.defaults.get("fused") for part in self.parts)})

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        """The state of all parts, by parameter."""
        return defaultdict(dict, {p: state for part in self.parts for p, state in part.state.items()})

    @state.setter
    def state(self, value: Mapping[Tensor, Any]) -> None:
        for part in self.parts:
            owned = {p for group in part.param_groups for p in group["params"]}
            part.state = defaultdict(dict, {p: s for p, s in value.items() if p in owned})

    @property
    def found_inf(self) -> Tensor | None:
        """A flag on the device, not 0 if the gradients must not be used; see `zoo.train.not_finite`."""
        return getattr(self.parts[0], "found_inf", None)

    @found_inf.setter
    def found_inf(self, value: Tensor) -> None:
        for part in self.parts:
            part.found_inf = value  # type: ignore[attr-defined]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every part."""
        del closure
        for part in self.parts:
            part.step()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Distribute loaded groups and state to the parts that they belong to."""
        groups, first = state["param_groups"], 0
        for part in self.parts:
            its_groups = groups[first : first + len(part.param_groups)]
            first += len(its_groups)
            owned = {p for group in its_groups for p in group["params"]}
            its_state = defaultdict(dict, {p: s for p, s in state["state"].items() if p in owned})
            part.__setstate__({"state": its_state, "param_groups": its_groups})
        self.param_groups = groups
