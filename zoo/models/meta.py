"""Building on the meta device, where tensors have no values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class WithoutValues(TorchFunctionMode):
    """Draw no normal random numbers for tensors on the meta device, which could not hold them.

    Torch's reference for it would be the only one that building most models needs, and would import torch's compiler
    (see `zoo.models.tried`). Enter it after `torch.device("meta")`.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, or leave the values out."""
        kwargs = kwargs or {}
        if func is Tensor.normal_ and args and args[0].device.type == "meta":
            return args[0]
        if func is torch.randn and kwargs.keys() <= {"dtype", "requires_grad"}:
            return torch.empty(*args, **kwargs)
        return func(*args, **kwargs)
