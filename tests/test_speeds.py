"""Speeds of recorded runs: only runs that had a GPU to themselves count."""
from __future__ import annotations

import pytest
from test_differences import record

from vixlib.report.comparison import NOT_MEASURED
from vixlib.report.memory import cost_table
from vixlib.report.records import write_record
from vixlib.report.speeds import seconds_to, speed_cells


def run(**changed) -> dict:
    history = [{"epoch": 1 + i, "loss": 1.0, "top1": top1, "top5": 90.0, "seconds": 10.0}
               for i, top1 in enumerate((40.0, 56.0, 54.0, 58.0))]
    return record("ViT", "learned", 58.0, profile="paper", config="paper", epochs=4) | {
        "device": "NVIDIA T4", "options": {}, "history": history, "images_per_second": 500.0} | changed


def test_seconds_count_to_the_first_epoch_that_was_good_enough():
    assert seconds_to(run(), 55.67) == 20.0
    assert seconds_to(run(), 58.5) is None


def test_shared_and_slow_devices_say_nothing():
    assert speed_cells([run(), run(images_per_second=700.0, seed=1)], 55.67) == [
        "600 (NVIDIA T4)", "20 (2 of 2 runs)"]
    assert speed_cells([run()], 90.0) == ["500 (NVIDIA T4)", "not reached (n=1)"]
    for silent in ({"device": "CPU x86_64, 2 threads"}, {"concurrent_runs": 4}, {"profile": "quick"},
                   {"images_per_second": None}):
        assert speed_cells([run(**silent)], 55.67) == [NOT_MEASURED] * 2
    assert speed_cells([run()], None) == ["500 (NVIDIA T4)", "-"]


def test_machines_and_ways_of_compiling_are_told_apart():
    compiled = run()["train"] | {"compile": "graphs"}
    others = [run(device="NVIDIA H200", images_per_second=5000.0), run(train=compiled, images_per_second=900.0)]
    assert speed_cells([*others, run()], 90.0) == [
        "5,000 (NVIDIA H200)\n500 (NVIDIA T4)\n900 (NVIDIA T4, compile=graphs)", "\n".join(["not reached (n=1)"] * 3)]


def test_costs_of_a_table_with_a_batch_for_each_row_are_refused():
    with pytest.raises(ValueError, match="table=2 has a batch size for each row"):
        cost_table(2)


def test_the_cost_table_has_a_row_a_system(tmp_path):
    cells = [row[-2:] for row in cost_table(1, results=tmp_path).rows]
    assert cells == [[NOT_MEASURED] * 2] * 4 + [[NOT_MEASURED, "-"]] * 2
    write_record(run(), tmp_path)
    told = ["500 (NVIDIA T4)", "20 (1 of 1 runs)"]
    assert cost_table(1, results=tmp_path).rows[0][-2:] == told
    for other in ({"config": "uniform"}, {"options": {"patch_size": 4}}):  # their costs are not those of these layers
        write_record(run(images_per_second=900.0, **other), tmp_path)
    assert cost_table(1, results=tmp_path).rows[0][-2:] == told
    with pytest.raises(ValueError, match="table='rope' compares systems with uniform layers"):
        cost_table("rope")
