"""Checks of torch, torchvision and devices, which a separate process makes (see `zoo.cli.doctor.probe`)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from zoo.base import children, cpus
from zoo.base.text import plural
from zoo.cli.doctor.finding import Finding, size

SECONDS: Final = 180.0
"""Time limit for importing torch and one operation on each device."""

REINSTALL: Final = "reinstall both from one index: pip install --force-reinstall torch torchvision"


class Probe:
    """The process: started in the constructor and read when needed; a crash in it becomes a finding."""

    def __init__(self) -> None:
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self.process = subprocess.Popen(
            children.python("zoo.cli.doctor.probe"),
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            env=children.environment(),
        )
        self.neighbours = cpus.Neighbours()
        self._report: dict[str, Any] | None = None

    def report(self) -> dict[str, Any]:
        """The report that the process printed; {"crash": why} if it printed none."""
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
                report = json.loads(line)
                if isinstance(report, dict):
                    return report
        last = f": {lines[-1][:200]}" if lines else ""
        return {"crash": f"ended with code {code}{last}"}

    def stop(self) -> None:
        """Kill the process if it is still running."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.output.close()

    def versions(self) -> Iterator[Finding]:
        """Check that torch and torchvision can be imported and compute."""
        report = self.report()
        if "crash" in report:
            yield Finding("versions", "torch", "error", f"the check of torch {report['crash']}", REINSTALL)
            return
        if problem := report.get("torch_error"):
            yield Finding("versions", "torch", "error", f"torch cannot be used: {problem}", REINSTALL)
            return
        text = f"torch {report['torch']} works, built for {report['built_for']}"
        yield Finding("versions", "torch", "ok", text, data={"torch": report["torch"]})
        if problem := report.get("torchvision_error"):
            text = f"torchvision cannot be used with torch {report['torch']}: {problem}"
            yield Finding("versions", "torchvision", "error", text, REINSTALL)

    def devices(self) -> Iterator[Finding]:
        """Check CPU, CUDA and MPS."""
        report = self.report()
        if "cpu" not in report:
            return
        yield _cpu(report["cpu"])
        yield from crowded(self.neighbours.busy(), report["cpu"]["threads"])
        for device in report.get("cuda", []):
            yield _cuda(device)
        if not report.get("cuda"):
            yield _no_cuda(report)
        if report.get("mps"):
            yield Finding("devices", "mps", "ok", "mps: Apple's GPU", data={"mps": True})


def _cpu(cpu: dict[str, Any]) -> Finding:
    bf16 = "bf16 in hardware" if cpu["bf16"] else "no bf16 in hardware: training uses fp32"
    text = f"cpu: {plural(cpu['cores'], 'core')}, {cpu['why']}, {cpu['capability']}, {bf16}"
    return Finding("devices", "cpu", "ok", text, data=cpu)


def crowded(busy: float | None, threads: int) -> Iterator[Finding]:
    """Report CPUs that other processes keep busy; processes that this command started count while they run."""
    if busy is None or busy < cpus.CROWDED or threads == 1:
        return
    text = f"other processes kept {busy:.1f} of {plural(cpus.affinity(), 'CPU')} busy during this check"
    fix = "nothing to do: `zoo train` times a step with fewer threads, and uses those that are faster"
    yield Finding("devices", "neighbours", "note", text, fix, {"busy": round(busy, 2)})


def _cuda(device: dict[str, Any]) -> Finding:
    name = f"cuda:{device['index']}"
    if problem := device.get("error"):
        fix = "install a torch for this GPU and driver: see 'Get started' on pytorch.org"
        return Finding("devices", name, "error", f"{name} {device.get('name', '')}: {problem}", fix, device)
    bf16 = "bf16" if device["bf16"] else "no bf16: training uses fp32"
    memory = f"{size(device['free'])} of {size(device['total'])} free"
    text = f"{name}: {device['name']}, capability {device['capability']}, {memory}, {bf16}"
    return Finding("devices", name, "ok", text, data=device)


def _no_cuda(report: dict[str, Any]) -> Finding:
    driver = Path("/proc/driver/nvidia/version").exists()
    if driver and report["built_for"] == "the CPU":
        fix = "install a torch for CUDA: pip install --force-reinstall torch torchvision, from its CUDA index"
        text = "an NVIDIA driver is installed, but this torch was built for the CPU"
        return Finding("devices", "cuda", "warning", text, fix)
    if driver:
        text = f"an NVIDIA driver is installed, but torch finds no GPU{report.get('cuda_error', '')}"
        fix = "check nvidia-smi and CUDA_VISIBLE_DEVICES, and update the driver if it is too old"
        return Finding("devices", "cuda", "warning", text, fix)
    return Finding("devices", "cuda", "note", "no NVIDIA GPU: training uses the CPU")
