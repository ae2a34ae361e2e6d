"""A process (`python -m zoo.cli.doctor.probe`) that computes on each device and prints one JSON line."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from zoo.base import cpus


def main() -> None:
    """Print the report, even if torch fails."""
    report: dict[str, Any] = {}
    try:
        _torch(report)
    except BaseException as error:
        report.setdefault("torch_error", _message(error))
    print(f"\n{json.dumps(report)}", flush=True)
    os._exit(0)  # skip the cleanup of a possibly broken library


def _torch(report: dict[str, Any]) -> None:
    import torch

    if float((torch.ones(2, 3) @ torch.ones(3, 2)).sum()) != 12.0:
        raise RuntimeError("a matrix product gives a wrong result")
    report["torch"] = torch.__version__
    cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
    report["built_for"] = f"CUDA {cuda}" if cuda else f"ROCm {hip}" if hip else "the CPU"
    report["cpu"] = _cpu(torch)
    report["mps"] = bool(torch.backends.mps.is_available())
    try:
        report["cuda"] = [_cuda(torch, i) for i in range(torch.cuda.device_count())]
    except Exception as error:
        report["cuda_error"] = f": {_message(error)}"
    try:
        _torchvision(torch)
    except BaseException as error:
        report["torchvision_error"] = _message(error)


def _torchvision(torch: Any) -> None:
    """Run one of torchvision's operators, which fails if it was built for another torch."""
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    if len(torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)) != 1:
        raise RuntimeError("its operator nms gives a wrong result")


def _cpu(torch: Any) -> dict[str, Any]:
    from zoo.models.device import limit_threads, threads_in_words

    limit_threads()
    can = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "why": threads_in_words(),
        "quota": cpus.quota(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "bf16": bool(can.get("avx512_bf16") or can.get("amx_bf16")),
    }


def _cuda(torch: Any, index: int) -> dict[str, Any]:
    device: dict[str, Any] = {"index": index}
    try:
        device["name"] = torch.cuda.get_device_name(index)
        device["capability"] = ".".join(map(str, torch.cuda.get_device_capability(index)))
        device["free"], device["total"] = torch.cuda.mem_get_info(index)
        with torch.cuda.device(index):
            device["bf16"] = bool(torch.cuda.is_bf16_supported(including_emulation=False))
            if float(torch.ones(8, device="cuda").sum()) != 8.0:
                raise RuntimeError("a sum on this device gives a wrong result")
    except Exception as error:
        device["error"] = _message(error)
    return device


def _message(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    main()
