"""What a run used, by the counters of the hardware."""

from __future__ import annotations

from pathlib import Path

from zoo.studies.reproduce.energy import Meter, counters, recorded


def test_energy_is_added_up_over_interruptions_and_counters_that_wrap(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    (zone / "intel-rapl:0:0").mkdir(parents=True)
    (zone / "max_energy_range_uj").write_text("1000000000\n")

    def set_joules(value: float) -> None:
        (zone / "energy_uj").write_text(f"{int(value * 1e6)}\n")

    run = tmp_path / "run"
    run.mkdir()
    set_joules(900)
    first = Meter(run, counters("cpu", tmp_path))
    set_joules(100)  # went round at 1000
    first.keep()
    assert recorded(run) == {"joules": 200.0, "from": "rapl"}
    set_joules(500)  # whatever was used while nothing was trained
    second = Meter(run, counters("cpu", tmp_path))
    set_joules(530)
    second.keep()
    assert recorded(run) == {"joules": 230.0, "from": "rapl"}
    nothing = Meter(tmp_path, counters("cpu", tmp_path / "absent"))
    nothing.keep()
    assert recorded(tmp_path) is None
