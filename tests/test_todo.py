"""What a GPU should run next: the order, the blocks, and a block run, exported and merged by the command line."""
from __future__ import annotations

import json
import re
import shlex

import pytest
from blank import BLANK
from test_reproduce import TINY

import vixlib as vix
from vixlib.data.shapes import make_shapes
from vixlib.report.records import read_records, record_name, write_record
from vixlib.reproduce import command as reproduce
from vixlib.reproduce import todo
from vixlib.reproduce.estimate import Estimator
from vixlib.reproduce.gpu_jobs import BatchJob, ColumnsJob
from vixlib.reproduce.jobs import Job

DATASET = "cifar10-jpg"


def record(job: Job, top1: float = 50.0, seconds: float = 30.0, device: str = "Some GPU", **more) -> dict:
    history = [{"epoch": epoch + 1, "loss": 1.0, "top1": top1, "top5": 90.0, "seconds": seconds}
               for epoch in range(job.epochs)]
    return {**BLANK, **job.identity(), "history": history, "best_top1": top1, "last_top1": top1, "device": device,
            "images_per_second": 1.0, "train": job.profile.train.to_dict(), "finished": "2026", **more}


def jobs_of(results, title: str) -> list:
    return list(next(part.jobs for part in todo.agenda(DATASET, results) if part.title.startswith(title)))


def test_every_first_seed_and_the_memory_come_before_any_second_seed(tmp_path):
    jobs = todo.coming(DATASET, tmp_path, tmp_path)
    kinds = [(job.profile.name, job.table, job.seed) if isinstance(job, Job) else type(job) for job in jobs]
    first = list(dict.fromkeys(kinds))
    assert first[:6] == [("paper", 1, 0), ("paper", 3, 0), ("paper", 4, 0), ("paper", "rope", 0), BatchJob, ColumnsJob]
    assert first[6:10] == [("modern", 1, 0), ("modern", 3, 0), ("modern", 4, 0), ("modern", "cxv", 0)]
    assert first[10:13] == [("paper", 2, 0), ("paper", "cxv", 0), ("paper", "variants", 0)]
    assert first[13] == ("first-epoch", "logs", 0)
    assert [seed for *_, seed in first[14:]] == [1] * 5 + [2] * 5
    assert len({job.name for job in jobs}) == len(jobs)


def test_what_is_recorded_is_left_out_and_the_best_row_is_chosen_from_records(tmp_path):
    assert todo.best_row(1, tmp_path, DATASET).model == "ViN"  # the paper's best
    vit, vip, *_ = [job for job in jobs_of(tmp_path, "Table 1, seed 0") if job.row.model in ("ViT", "ViP")]
    for job, top1 in zip((vit, vip), (61.0, 60.0), strict=True):
        write_record(record(job, top1, table=1), tmp_path)
    assert todo.best_row(1, tmp_path, DATASET).model == "ViT"
    assert [job.row.model for job in todo.coming(DATASET, tmp_path, tmp_path)[:3]] == ["MLPMixer", "ViL", "ViN"]
    batches = jobs_of(tmp_path, "Table 2")
    path = batches[0].path(tmp_path)
    path.parent.mkdir()
    path.write_text("{}")
    assert not any(job.name == batches[0].name for job in todo.coming(DATASET, tmp_path, tmp_path))


def test_blocks_hold_what_fits_by_recorded_times(tmp_path):
    for job in jobs_of(tmp_path, "Table 1, seed 0"):  # 40 epochs of 8 s shared by two runs: 160 s each
        write_record(record(job, seconds=8.0, table=1, concurrent_runs=2), tmp_path)
    for job in jobs_of(tmp_path, "Table 3, seed 0")[:-1]:
        write_record(record(job, table=3), tmp_path)
    text = todo.describe_agenda(DATASET, tmp_path, tmp_path / "none", minutes=9)
    assert "times by the records of Some GPU" in text and "--next" in text and "--import" in text
    assert "Table 1, seed 0" not in text and "Table 3, seed 0: HybridMLPMixer\n" in text
    assert "Experiments on the reasons, seed 0: CLTV with projection=linear, ViP with kernel=relu, " in text
    blocks = text.split("\n\nblock ")[1:]
    seed1 = [block for block in blocks if "Table 1, seed 1" in block]
    assert [block.count("\n") for block in seed1] == [1, 1] and all(", about 8 min" in block for block in seed1)
    assert "MLPMixer, ViT, ViP" in seed1[0] and "ViL, ViN, FNet" in seed1[1]
    assert "about" not in blocks[0].splitlines()[0]  # HybridMLPMixer has never been timed


def test_without_a_gpu_record_times_are_unknown_and_a_part_is_a_block(tmp_path):
    write_record(record(jobs_of(tmp_path, "Table 1, seed 0")[0], table=1, device="CPU x86_64, 2 threads"), tmp_path)
    text = todo.describe_agenda(DATASET, tmp_path, tmp_path)
    assert "times are unknown" in text and "block 1\n  Table 1, seed 0: MLPMixer, ViP, ViL, ViN, FNet\n" in text


def test_a_gpus_speed_is_asked_for_until_it_is_there(tmp_path):
    assert "benchmarks.peers --device cuda" in todo.describe_agenda(DATASET, tmp_path / "results", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "peers_GPU.json").write_text(json.dumps(
        {"benchmark": "peers", "quick": False, "kind": "cuda", "device": "GPU", "versions": {}, "started": "",
         "settings": {}, "rows": []}))
    assert "benchmarks" not in todo.describe_agenda(DATASET, tmp_path / "results", tmp_path)


def test_the_rehearsal_takes_every_way_that_the_plan_takes(tmp_path):
    """A way that is first tried in a block costs the block."""
    text = todo.describe_agenda(DATASET, tmp_path / "results", tmp_path).replace("\\\n", " ").replace("$TRIAL", "")
    loops = re.sub(r"for (\w+) in ([\w -]+); do (.*); done", lambda loop: "\n".join(
        loop[3].replace(f"${loop[1]}", value) for value in loop[2].split()), text)
    commands = [reproduce._parser().parse_args(shlex.split(line.partition("vixlib.reproduce")[2]))
                for line in loops.splitlines() if "python -m vixlib.reproduce " in line]
    rehearsed = [command for command in commands if command.data == "shapes"]
    assert {command.table for command in rehearsed} == {"1", "2", "3", "4", "cxv", "rope"}
    assert {(command.profile, command.compile) for command in rehearsed} == {
        ("smoke", "no"), ("modern", "no"), ("modern", "graphs"), ("paper", "no")}
    assert any(command.export for command in rehearsed) and any(command.batches for command in rehearsed)
    assert {command.jobs for command in commands if command.next} <= {command.jobs for command in rehearsed}
    assert any(vars(command)["import"] for command in commands)


def test_what_cannot_travel_half_done_begins_first(tmp_path):
    big = {name for name in vix.names() if not todo.travels(name, "paper")}
    assert big == {"MLPMixer", "HybridMLPMixer", "ResNet18", "CLTV"}  # 12 bytes a parameter
    begun = {(job.table, job.seed): job.row.model for job in reversed(todo.coming(DATASET, tmp_path, tmp_path))
             if isinstance(job, Job) and job.profile.name == "paper"}
    assert [begun[key] for key in ((1, 0), (3, 0), ("cxv", 0), (1, 2))] == ["MLPMixer", "HybridMLPMixer", "ResNet18",
                                                                           "MLPMixer"]


def test_estimates_use_own_epochs_then_records_then_a_measured_step(tmp_path):
    data, job = make_shapes(train=64, test=32), reproduce.plan(1, TINY, "shapes", models=["ViT"])[0]
    assert Estimator("Some GPU", []).of(job).seconds is None
    other = Estimator("Some GPU", [record(job, seconds=5.0, device="CPU")], data).of(job)
    assert other.source == "a measured step" and other.seconds > 0
    calls = [{"from_epoch": 1, "concurrent_runs": 2}, {"from_epoch": 2, "concurrent_runs": 1}]
    known = Estimator("Some GPU", [record(job, seconds=9.0, concurrent_runs=2, calls=calls)])
    assert known.of(job).seconds == 9.0 + 4.5  # only the first of two epochs was shared: 6.75 each
    known = Estimator("Some GPU", [record(job, seconds=4.0), record(job, seconds=8.0, concurrent_runs=2)])
    assert (known.of(job).seconds, known.of(job).source) == (8.0, "records")  # two epochs of four seconds
    assert job.perform(data, reproduce.Place(tmp_path, tmp_path), minutes=1e-9).done is False
    run = job.progress(tmp_path)
    own = Estimator(run.device, [record(job, seconds=4.0, device=run.device)]).of(job, run)
    assert own.source == "its own epochs" and own.seconds == pytest.approx(run.history[0]["seconds"])
    assert known.of(job, run).seconds == 4.0  # begun on another device: one epoch left, by the records here


def test_the_next_block_is_run_packed_and_merged(tmp_path, monkeypatch, capsys):
    data = make_shapes(train=64, test=32)
    monkeypatch.setattr(reproduce, "load", lambda name, **_: data)
    monkeypatch.setattr(reproduce, "coming", lambda dataset, results, checkpoints: reproduce.most_missing_first(
        reproduce.plan(1, TINY, dataset, models=["ViT", "ViL"]), results, checkpoints))

    def call(home: str, *words: str) -> int:
        return reproduce.main([*words, "--results", str(tmp_path / home / "results"),
                               "--checkpoints", str(tmp_path / home / "checkpoints")])

    out = tmp_path / "out"
    assert call("away", "--next", "--data", "any", "--minutes", "1e-9", "--export", str(out)) == 3
    assert "1 files to take home" in capsys.readouterr().out
    packed = json.loads((out / "parcels.json").read_text())["files"]
    assert [name.split("/")[0] for name in packed] == ["checkpoints"]
    with pytest.raises(SystemExit):  # the parcels there are not mixed with others
        call("away", "--next", "--export", str(out))
    assert call("home", "--import", str(out)) == 0 and "taken" in capsys.readouterr().out
    assert call("home", "--next", "--data", "any", "--minutes", "9", "--export", str(tmp_path / "second")) == 0
    assert sorted(record["model"] for record in read_records(tmp_path / "home" / "results")) == ["ViL", "ViT"]
    names = json.loads((tmp_path / "second" / "parcels.json").read_text())["files"]
    assert names == sorted(f"results/{record_name(r)}" for r in read_records(tmp_path / "home" / "results"))
    capsys.readouterr()
    assert call("home", "--todo", "--data", "any") == 0
    assert "--next" in capsys.readouterr().out


def test_an_agenda_without_anything_missing_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(todo, "agenda", lambda *_: [])
    assert todo.describe_agenda(DATASET, tmp_path, tmp_path).startswith("Nothing is missing")
