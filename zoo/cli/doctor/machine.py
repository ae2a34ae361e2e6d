"""torch, torchvision and the devices, as a process of its own reports them (see `zoo.cli.doctor.probe`)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from zoo.base.text import plural
from zoo.cli.doctor.finding import Finding, size

SECONDS: Final = 180.0
"""How long importing torch and one operation on each device may take."""

REINSTALL: Final = "install both anew, from one index: pip install --force-reinstall torch torchvision"


class Probe:
    """The process: started when made, asked when needed; whatever happens in it is a finding."""

    def __init__(self) -> None:
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zoo.cli.doctor.probe"],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            cwd=os.getcwd(),
        )
        self._report: dict[str, Any] | None = None

    def report(self) -> dict[str, Any]:
        """What it said; {"crash": why} where it said nothing."""
        if self._report is None:
            self._report = self._wait()
        return self._report

    def _wait(self) -> dict[str, Any]:
        try:
            code = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            return {"crash": f"did not finish within {SECONDS:.0f} seconds"}
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").splitlines()
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
        last = f": {lines[-1][:200]}" if lines else ""
        return {"crash": f"ended with code {code}{last}"}

    def stop(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.output.close()

    def versions(self) -> Iterator[Finding]:
        """Whether torch and torchvision can be imported and compute."""
        said = self.report()
        if "crash" in said:
            yield Finding("versions", "torch", "error", f"looking at torch {said['crash']}", REINSTALL)
            return
        if problem := said.get("torch_error"):
            yield Finding("versions", "torch", "error", f"torch cannot be used: {problem}", REINSTALL)
            return
        text = f"torch {said['torch']} computes, built for {said['built_for']}"
        yield Finding("versions", "torch", "ok", text, data={"torch": said["torch"]})
        if problem := said.get("torchvision_error"):
            text = f"torchvision cannot be used with torch {said['torch']}: {problem}"
            yield Finding("versions", "torchvision", "error", text, REINSTALL)

    def devices(self) -> Iterator[Finding]:
        """CPU, CUDA and MPS."""
        said = self.report()
        if "cpu" not in said:
            return
        yield _cpu(said["cpu"])
        for device in said.get("cuda", []):
            yield _cuda(device)
        if not said.get("cuda"):
            yield _no_cuda(said)
        if said.get("mps"):
            yield Finding("devices", "mps", "ok", "mps: Apple's GPU", data={"mps": True})


def _cpu(cpu: dict[str, Any]) -> Finding:
    bf16 = "bf16 in hardware" if cpu["bf16"] else "no bf16 in hardware: trains in fp32"
    said = f"cpu: {plural(cpu['cores'], 'core')}, {plural(cpu['threads'], 'thread')}, {cpu['capability']}, {bf16}"
    return Finding("devices", "cpu", "ok", said, data=cpu)


def _cuda(device: dict[str, Any]) -> Finding:
    name = f"cuda:{device['index']}"
    if problem := device.get("error"):
        fix = "a torch for this GPU and driver: see the selector on pytorch's page 'Get started'"
        return Finding("devices", name, "error", f"{name} {device.get('name', '')}: {problem}", fix, device)
    bf16 = "bf16" if device["bf16"] else "no bf16: trains in fp32"
    memory = f"{size(device['free'])} of {size(device['total'])} free"
    said = f"{name}: {device['name']}, capability {device['capability']}, {memory}, {bf16}"
    return Finding("devices", name, "ok", said, data=device)


def _no_cuda(said: dict[str, Any]) -> Finding:
    driver = Path("/proc/driver/nvidia/version").exists()
    if driver and said["built_for"] == "the CPU":
        fix = "a torch built for CUDA: pip install --force-reinstall torch torchvision, from CUDA's index"
        text = "an NVIDIA driver is here, and torch is built for the CPU"
        return Finding("devices", "cuda", "warning", text, fix)
    if driver:
        text = f"an NVIDIA driver is here, and torch finds no GPU{said.get('cuda_error', '')}"
        fix = "look at nvidia-smi and CUDA_VISIBLE_DEVICES; a driver that is too old wants an update"
        return Finding("devices", "cuda", "warning", text, fix)
    return Finding("devices", "cuda", "note", "no NVIDIA GPU: training is on the CPU")
