"""Reproducing a table: what is missing is trained, in order, resumed after SIGKILL, and recorded once."""
from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from blank import BLANK

import vixlib as vix
from vixlib.data.shapes import make_shapes
from vixlib.device import device_name, pick_device
from vixlib.profiles import PROFILES, Profile
from vixlib.report.records import read_records, write_record
from vixlib.report.speeds import alone_on_a_gpu
from vixlib.reproduce import command as reproduce
from vixlib.reproduce import parcels
from vixlib.reproduce.jobs import Place, missing, most_missing_first, plan
from vixlib.reproduce.workers import Report
from vixlib.train import in_use, parallel

TINY = Profile("tiny", "for tests", "shapes", "uniform", vix.TrainConfig(epochs=2, batch_size=32),
               {"patch_size": 8, "num_landmarks": 4, "rank": 4, "dim": 16, "depth": 1, "dim_head": 4, "mlp_dim": 16})


@pytest.fixture(scope="module")
def data():
    return make_shapes(train=64, test=32)


def go(jobs, data, folder, minutes=None, at_once=1):
    place = Place(folder / "results", folder / "checkpoints", None, at_once)
    return reproduce.reproduce(most_missing_first(jobs, place.results, place.checkpoints), data, place,
                               None if minutes is None else time.time() + 60 * minutes)


def test_a_seed_that_is_named_twice_is_trained_once():
    assert plan(1, TINY, "shapes", (1, 0, 1)) == plan(1, TINY, "shapes", (1, 0))


def test_one_seed_everywhere_before_a_second_anywhere():
    jobs = plan(1, TINY, "shapes", seeds=[0, 1])
    rows = ("ViT", "ViP", "ViL", "ViN", "FNet", "MLPMixer")
    assert [(job.row.model, job.seed) for job in jobs] == [(m, s) for s in (0, 1) for m in rows]


def test_missing_runs_are_trained_and_recorded_once(data, tmp_path):
    jobs = plan(1, TINY, data.name, seeds=[0, 1], models=["ViN", "ViL"])
    assert go(jobs[:1], data, tmp_path) == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert go(jobs, data, tmp_path) == 0
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert len(before) == 1 and len(after) == 4 and after.items() >= before.items()
    record = read_records(tmp_path / "results", model="ViN", seed=1)[0]
    assert len(record["history"]) == 2 and record["options"]["num_landmarks"] == 4
    assert record["params"]["true"] > record["params"]["as_paper"] and record["train"]["seed"] == 1
    assert record["best_top1"] == max(epoch["top1"] for epoch in record["history"])


def test_deleting_a_record_makes_it_missing_and_the_checkpoint_gives_it_back(data, tmp_path, capsys):
    jobs = plan(1, TINY, data.name, models=["ViT"])
    go(jobs, data, tmp_path)
    path = tmp_path / "results" / f"{jobs[0].name}.json"
    first = read_records(tmp_path / "results")[0]
    path.unlink()
    assert missing(jobs, tmp_path / "results") == jobs
    assert reproduce.show(jobs, data, tmp_path / "results", tmp_path / "checkpoints") == 3
    assert f"\ntrained  {jobs[0].name}" in capsys.readouterr().out
    go(jobs, data, tmp_path)
    assert read_records(tmp_path / "results")[0]["history"] == first["history"]  # nothing was trained again


def test_minutes_stop_in_time_and_the_next_call_goes_on(data, tmp_path):
    jobs = plan(1, dataclasses.replace(TINY, train=vix.TrainConfig(epochs=3)), data.name, models=["ViT"])
    calls = 0
    while go(jobs, data, tmp_path, minutes=1e-9):
        calls += 1
        assert calls < 5
    assert calls == 2  # one epoch each call, the third finishes
    assert len(read_records(tmp_path / "results")[0]["history"]) == 3


def test_rope_rows_are_uniform_and_carry_their_position(data, tmp_path):
    jobs = [job for job in plan("rope", dataclasses.replace(TINY, config="paper"), data.name, models=["ViN"])
            if job.row.position in ("rope", "learned")]
    go(jobs, data, tmp_path)
    found = read_records(tmp_path / "results")
    assert sorted(record["position"] for record in found) == ["learned", "rope"]
    assert {record["config"] for record in found} == {"uniform"}
    learned, rope = sorted(found, key=lambda record: record["position"])
    assert learned["params"]["true"] - rope["params"]["true"] == 17 * 16


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
import torch
from test_reproduce import TINY, go
from vixlib.reproduce.jobs import plan
from vixlib.data.shapes import make_shapes
import dataclasses, vixlib as vix
torch.set_num_threads(1)
profile = dataclasses.replace(TINY, train=vix.TrainConfig(epochs={epochs}, batch_size=8))
go(plan(1, profile, "shapes", models=["ViN"]), make_shapes(train=256, test=32), Path({folder!r}))
"""


def test_sigkill_in_training_changes_nothing_in_the_end(tmp_path):
    def start(folder, epochs=3):
        root = os.path.dirname(os.path.dirname(__file__))
        code = SCRIPT.format(tests=os.path.dirname(__file__), root=root, folder=str(folder), epochs=epochs)
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                env={**os.environ, "TQDM_DISABLE": "1"})

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole).wait(timeout=240) == 0
    killed = start(broken)
    while killed.poll() is None and not list(broken.glob("checkpoints/*.pt")):
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list(broken.glob("results/*.json")), "it was to be killed before it had finished"
    assert start(broken).wait(timeout=240) == 0
    first, second = (read_records(folder / "results")[0]["history"] for folder in (whole, broken))
    for epoch in (*first, *second):
        del epoch["seconds"]
    assert first == second


def test_table_2_trains_with_the_batches_it_prints():
    jobs = plan(2, PROFILES["paper"], "cifar10")
    assert {job.row.model: job.train_config.batch_size for job in jobs} == {
        "ViT": 64, "ViP": 192, "ViL": 336, "ViN": 152}
    table1 = {job.row.model: job.name for job in plan(1, PROFILES["paper"], "cifar10")}
    assert [job.row.model for job in jobs if job.name == table1[job.row.model]] == ["ViT"]  # one run serves both
    assert {job.train_config.batch_size for job in plan(2, PROFILES["quick"], "cifar10")} == {128}


def test_unknown_models_are_named():
    with pytest.raises(ValueError, match=r"\[.LeViT.\] are not in table 1; it has FNet, MLPMixer, ViL, ViN, ViP, ViT"):
        plan(1, TINY, "shapes", models=["LeViT"])


def test_what_is_most_missing_comes_first(data, tmp_path):
    jobs = plan(1, TINY, data.name, seeds=[0, 1], models=["ViT", "ViP", "ViL"])
    results, checkpoints = tmp_path / "results", tmp_path / "checkpoints"

    def order():
        return [(job.row.model, job.seed) for job in most_missing_first(jobs, results, checkpoints)]

    def touch(path):
        path.parent.mkdir(exist_ok=True)
        path.touch()

    assert order() == [(model, seed) for seed in (0, 1) for model in ("ViT", "ViP", "ViL")]
    write_record({**BLANK, **jobs[3].identity()}, results)  # ViT has its first run, with seed 1
    assert order() == [("ViP", 0), ("ViL", 0), ("ViT", 0), ("ViP", 1), ("ViL", 1)]
    touch(checkpoints / f"{jobs[2].name}.pt")
    touch(checkpoints / f"{jobs[4].name}.pt")
    assert order() == [("ViL", 0), ("ViP", 0), ("ViP", 1), ("ViT", 0), ("ViL", 1)]


def test_command_line_lists_done_partial_and_missing_with_times(tmp_path, capsys, monkeypatch):
    data = make_shapes(train=64, test=32)
    monkeypatch.setattr(reproduce, "load", lambda name, **_: data)
    monkeypatch.setitem(reproduce.PROFILES, "smoke", dataclasses.replace(TINY, name="smoke"))
    folders = ["--results", str(tmp_path / "results"), "--checkpoints", str(tmp_path / "checkpoints")]
    command = ["--table", "1", "--profile", "smoke", "--models", "ViT", "ViP", "ViL", *folders]
    jobs = plan(1, reproduce.PROFILES["smoke"], data.name, models=["ViT", "ViP"])
    go(jobs[:1], data, tmp_path)
    go(jobs[1:], data, tmp_path, minutes=1e-9)
    capsys.readouterr()
    assert reproduce.main([*command, "--list"]) == 3
    done, partial, absent, total = capsys.readouterr().out.splitlines()
    assert done == f"done     {jobs[0].name}"
    assert partial.startswith(f"partial  {jobs[1].name} (1 of 2 epochs): ") and "its own epochs" in partial
    assert absent.startswith("missing  ") and "ViL" in absent and "a measured step" in absent
    assert total.startswith("total    2 of 3 to do, ") and total.endswith(device_name(pick_device()))
    assert reproduce.main([*command, "--minutes", "5"]) == 0
    assert reproduce.main([*command, "--list"]) == 0


def test_a_failing_run_does_not_stop_the_others_and_is_told(data, tmp_path, capsys):
    broken = dataclasses.replace(TINY, options={**TINY.options, "patch_size": 7})
    jobs = [*plan(1, broken, data.name, models=["ViP"]), *plan(1, TINY, data.name, models=["ViT"])]
    with pytest.raises(reproduce.RunsFailed, match=r"(?s)1 run.*ViP_.*patch_size=7") as failed:
        go(jobs, data, tmp_path)
    assert "Traceback" not in str(failed.value)                   # the error is a sentence already
    assert [record["model"] for record in read_records(tmp_path / "results")] == ["ViT"]
    assert "failed: " in capsys.readouterr().out
    assert go(jobs[1:], data, tmp_path) == 0


@pytest.mark.parametrize("words", [[], ["--minutes", "0", "--next"], ["--table", "9"], ["--next", "--jobs", "0"],
                                   ["--next", "--list"]])
def test_a_command_that_makes_no_sense_is_refused(words):
    with pytest.raises(SystemExit) as caught:
        reproduce.main(words)
    assert caught.value.code == 2


def test_a_data_set_that_is_not_here_is_a_sentence_and_no_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vixlib.data.loading.find", lambda name, root=None: None)
    command = ["--table", "cxv", "--profile", "quick", "--data", "cifar10-jpg", "--results", str(tmp_path)]
    assert reproduce.main(command) == 1
    assert "cifar10-jpg has no download" in capsys.readouterr().err
    assert reproduce.main([*command, "--list"]) == 3  # what is missing is known all the same
    said, *rows, total = capsys.readouterr().out.splitlines()
    assert said.startswith("cifar10-jpg is not here")
    assert all(row.startswith("missing  ") and row.endswith(": time unknown") for row in rows)
    assert total.startswith(f"total    {len(rows)} of {len(rows)} to do, time unknown")


@pytest.mark.parametrize(("words", "named"), [(["--data", "nowhere"], "nowhere"), (["--models", "ViX"], "ViX")])
@pytest.mark.parametrize("how", [[], ["--list"]])
def test_an_unknown_name_is_a_sentence_and_no_traceback(words, named, how, capsys, monkeypatch):
    data = make_shapes(train=8, test=8)
    monkeypatch.setattr(reproduce, "load", lambda name, **_: vix.load(name) if name == "nowhere" else data)
    assert reproduce.main(["--table", "1", *words, *how]) == 1
    assert named in capsys.readouterr().err


def test_a_tilde_is_the_home_folder_even_behind_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    chosen = reproduce._parser().parse_args(["--table", "1", "--results=~/records"])
    assert chosen.results == tmp_path / "records"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--table", "1", "--seeds", "-1"], "-1 must be an integer from 0 to below 2**32"),
    (["--table", "1", "--seeds", str(2**32)], "must be an integer from 0 to below 2**32"),
    (["--table", "1", "--data", ""], "--data is empty"),
    *((["--table", "1", name, ""], "is empty; name a folder") for name in ("--results", "--checkpoints", "--export")),
    (["--table", "1", "--minutes", "inf"], "inf must be above 0 and finite"),
    (["--table", "1", "--minutes", "1e307"], "1e307 must be above 0 and finite"),
    (["--table", "1", "--export", __file__], "is a file; name a folder"),
    (["--table", "1", "--results", __file__], "is a file; name a folder"),
    (["--table", "1", "--results", "x/memory"], "is where figures of memory lie beside records; name another folder")])
def test_bad_arguments_are_refused_before_anything_is_trained(arguments, message, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(arguments)
    assert message in capsys.readouterr().err


def test_a_folder_without_parcels_is_one_sentence(tmp_path, capsys):
    assert reproduce.main(["--import", str(tmp_path)]) == 1
    assert "holds no parcels.json" in capsys.readouterr().err


def test_a_damaged_record_is_named_and_never_counts_as_done(tmp_path, capsys):
    job, = plan(1, reproduce.PROFILES["smoke"], "shapes", models=["ViT"])
    (tmp_path / f"{job.name}.json").write_text("")
    command = ["--table", "1", "--profile", "smoke", "--models", "ViT", "--data", "shapes", "--results", str(tmp_path),
               "--checkpoints", str(tmp_path / "checkpoints")]
    for more in ([], ["--list"]):
        assert reproduce.main([*command, *more]) == 1
        assert f"{job.name}.json is no valid JSON" in capsys.readouterr().err


def test_a_record_of_other_pictures_or_settings_is_said_to_be_one(tmp_path, monkeypatch, capsys):
    pictures = make_shapes(train=64, test=32)
    monkeypatch.setattr(reproduce, "load", lambda *_, **__: pictures)
    monkeypatch.setitem(reproduce.PROFILES, "smoke", TINY)
    command = ["--table", "1", "--profile", "smoke", "--models", "ViT", "--results", str(tmp_path), "--checkpoints",
               str(tmp_path / "checkpoints")]
    assert reproduce.main(command) == 0 and "recorded, but" not in capsys.readouterr().err
    pictures = make_shapes(train=64, test=32, seed=1)
    assert reproduce.main(command) == 0 and "recorded, but of other pictures than these" in capsys.readouterr().err
    assert reproduce.main([*command, "--list"]) == 0 and ", but of other pictures than" in capsys.readouterr().out
    pictures = make_shapes(train=64, test=32)
    longer = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, epochs=3))
    monkeypatch.setitem(reproduce.PROFILES, "smoke", longer)
    assert reproduce.main([*command, "--list"]) == 0 and ", but with epochs=2, now 3" in capsys.readouterr().out


def test_compiled_runs_are_the_tables_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    monkeypatch.setitem(reproduce.PROFILES, "smoke", TINY)
    command = ["--table", "1", "--profile", "smoke", "--models", "ViT", "--data", "shapes", "--results", str(tmp_path),
               "--checkpoints", str(tmp_path / "checkpoints")]
    assert reproduce.main([*command, "--compile", "graphs"]) == 0
    assert read_records(tmp_path)[0]["train"]["compile"] == "graphs"
    assert reproduce.main([*command, "--list"]) == 0 and "done" in capsys.readouterr().out


def test_what_the_command_line_cannot_do_is_a_sentence(tmp_path, capsys):
    command = ["--table", "1", "--profile", "smoke", "--models", "ViT", "--data", "shapes", "--results", str(tmp_path)]
    if not torch.cuda.is_available():
        assert reproduce.main([*command, "--memory-gb", "16"]) == 1
        assert "there is none here" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert reproduce.main([*command, "--export", str(tmp_path / "file" / "out")]) == 1
    assert "cannot write" in capsys.readouterr().err and not list(tmp_path.glob("*.json"))


def test_two_calls_at_once_do_not_export_from_one_folder(tmp_path, monkeypatch, capsys):
    """The first to end would take back what the other has noted, and a killed one's records would stay behind."""
    monkeypatch.setattr(parcels, "PATIENCE", 0.0)
    command = ["--table", "1", "--profile", "smoke", "--models", "ViT", "--data", "shapes", "--results", str(tmp_path),
               "--checkpoints", str(tmp_path / "checkpoints"), "--export", str(tmp_path / "out"), "--minutes", "1e-9"]
    with parcels.exporting(tmp_path / "checkpoints"):
        assert reproduce.main(command) == 1
    assert "--export: another call that exports is at work on" in capsys.readouterr().err
    assert [*(tmp_path / "out").iterdir(), *(tmp_path / "checkpoints").iterdir()] == []


@pytest.mark.parametrize("command", [["vixlib"], ["vixlib.reproduce", "--todo"]])
def test_a_command_whose_output_is_read_no_further_ends_without_a_traceback(command):
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` does once it has its lines
    done = subprocess.run([sys.executable, "-m", *command], stdout=writing, stderr=subprocess.PIPE, timeout=300,
                          env={**os.environ, "TQDM_DISABLE": "1"})
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
    ascii_alone = subprocess.run([sys.executable, "-m", *command], env={**os.environ, "PYTHONIOENCODING": "ascii"},
                                 capture_output=True, text=True)
    assert ascii_alone.returncode == 0 and "Traceback" not in ascii_alone.stderr
    closed = subprocess.run(f"{sys.executable} -m {' '.join(command)} >&-", shell=True, stderr=subprocess.PIPE,
                            timeout=300, env={**os.environ, "TQDM_DISABLE": "1"})
    assert b"Traceback" not in closed.stderr


def test_a_closed_standard_error_ends_no_training(tmp_path):
    """As by `2>&-`: there is no bar then, and all else."""
    code = ("import sys, vixlib as vix; sys.stderr = None\n"
            "data = vix.load('shapes', train=32, test=10)\n"
            "model = vix.build('ViT', patch_size=16, dim=8, depth=1, heads=1, dim_head=8)\n"
            "print(vix.fit(model, data, vix.TrainConfig(epochs=1), device='cpu').finished)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_a_run_that_another_trains_is_left_to_it_and_one_recorded_meanwhile_is_not_made_again(data, tmp_path):
    job, = plan(1, TINY, data.name, models=["ViT"])
    place = Place(tmp_path / "results", tmp_path / "checkpoints")
    with in_use.alone(place.checkpoints / f"{job.name}.pt"):
        outcome = job.perform(data, place, progress=False)
    assert not outcome.done and "another process trains it" in outcome.text and not list(tmp_path.glob("results/*"))
    assert job.perform(data, place, progress=False).done
    before = (place.results / f"{job.name}.json").stat().st_mtime_ns
    assert "recorded meanwhile" in job.perform(data, place, progress=False).text
    assert (place.results / f"{job.name}.json").stat().st_mtime_ns == before
    assert [path.name for path in place.checkpoints.iterdir()] == [f"{job.name}.pt"]


def test_what_another_process_has_recorded_meanwhile_is_not_missing(data, tmp_path, monkeypatch):
    job, = plan(1, TINY, data.name, models=["ViT"])
    go([job], data, tmp_path)
    place = Place(tmp_path / "results", tmp_path / "checkpoints")
    monkeypatch.setattr(reproduce, "in_turn", lambda *arguments: Report())  # found it in work elsewhere, and left it
    assert reproduce.reproduce([job], data, place) == 0
    (place.results / f"{job.name}.json").unlink()
    assert reproduce.reproduce([job], data, place) == 1


def test_a_record_tells_of_every_call_that_trained_a_part_of_it(data, tmp_path):
    job, = plan(1, dataclasses.replace(TINY, train=vix.TrainConfig(epochs=2)), data.name, models=["ViT"])
    shared, alone = (Place(tmp_path / "results", tmp_path / "checkpoints", at_once=n) for n in (4, 1))
    assert not job.perform(data, shared, minutes=1e-9, progress=False).done  # one epoch
    assert job.perform(data, alone, progress=False).done
    record, = read_records(tmp_path / "results")
    assert [(call["from_epoch"], call["concurrent_runs"]) for call in record["calls"]] == [(1, 4), (2, 1)]
    assert record["concurrent_runs"] == 4 and not alone_on_a_gpu({**record, "device": "NVIDIA T4"})
    assert not alone_on_a_gpu({**record, "concurrent_runs": 1, "device": "NVIDIA T4 then CPU"})
    assert alone_on_a_gpu({**record, "concurrent_runs": 1, "device": "NVIDIA T4"})


def test_a_record_names_the_versions_that_trained_it_not_those_that_write_it(data, tmp_path, monkeypatch):
    job, = plan(1, TINY, data.name, models=["ViT"])
    for commit in ("first", "second"):
        monkeypatch.setattr("vixlib.provenance._commit", lambda commit=commit: commit)
        go([job], data, tmp_path)
        record, = read_records(tmp_path / "results")
        assert record["commit"] == record["calls"][0]["commit"] == "first"
        (tmp_path / "results" / f"{job.name}.json").unlink()  # its checkpoint gives it back


def test_a_checkpoint_of_other_pictures_is_told_before_it_is_gone_on_from(data, tmp_path, capsys):
    job, = plan(1, TINY, data.name, models=["ViT"])
    go([job], data, tmp_path, minutes=1e-9)  # one epoch
    other = dataclasses.replace(data, train_images=data.train_images.flip(0))
    for pictures, status, words in ((data, 3, "partial "), (other, 1, "its checkpoint is of other pictures")):
        assert reproduce.show([job], pictures, tmp_path / "results", tmp_path / "checkpoints") == status
        assert words in "".join(capsys.readouterr())


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_largest_batches_are_not_looked_for_without_a_gpu(tmp_path, capsys):
    kept = ["--results", str(tmp_path), "--checkpoints", str(tmp_path)]
    assert reproduce.main(["--table", "2", "--batches", "--memory-gb", "16", "--data", "shapes", *kept]) == 1
    said = capsys.readouterr().err
    assert "--batches: measured on a GPU, and there is none here; vixlib.max_batch_size predicts them" in said


@pytest.mark.parametrize(("arguments", "message"), [
    (["--next", "--list"], "would ignore --list; it takes --checkpoints, --compile"),
    (["--next", "--table", "1"], "not allowed with argument"),
    (["--next", "--models", "ViT", "--seeds", "1"], "would ignore --models, --seeds"),
    (["--next", "--profile", "smoke"], "would ignore --profile"),
    (["--table", "1", "--list", "--batches", "--memory-gb", "16"], "leave out --batches"),
    (["--table", "1", "--list", "--export", "out"], "leave out --batches and --export"),
    (["--next", "--batches", "--memory-gb", "16"], "would ignore --batches"),
    (["--todo", "--models", "ViT"], "would ignore --models; it takes --checkpoints, --data, --minutes, --results"),
    (["--import", "out", "--export", "more"], "would ignore --export; it takes --checkpoints, --results"),
    (["--import", "out", "--jobs", "2"], "would ignore --jobs"),
    *((["--table", "1", "--results", "here", "--export", out], "name another folder") for out in (
        "here", "there/../here", "here/batches", "memory"))])
def test_what_does_not_go_together_is_said(arguments, message, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize("sign", ["SIGTERM", "SIGHUP"])
def test_being_told_to_end_keeps_and_exports_what_was_done(tmp_path, monkeypatch, sign, capsys, request):
    monkeypatch.setitem(reproduce.PROFILES, "smoke", TINY)
    monkeypatch.setattr(reproduce, "load", lambda *_, **__: make_shapes(train=64, test=32))
    made = reproduce.Job.perform

    def told_to_end(job, *arguments, **keywords):
        if job.row.model == "FNet":
            os.kill(os.getpid(), getattr(signal, sign))
            time.sleep(5)
        return made(job, *arguments, **keywords)

    monkeypatch.setattr(reproduce.Job, "perform", told_to_end)
    before = signal.signal(getattr(signal, sign), signal.SIG_DFL)  # nohup has SIGHUP ignored
    request.addfinalizer(lambda: signal.signal(getattr(signal, sign), before))
    status = reproduce.main(["--table", "1", "--profile", "smoke", "--models", "ViT", "FNet", "--data", "shapes",
                             "--results", str(tmp_path / "results"), "--checkpoints", str(tmp_path / "checkpoints"),
                             "--export", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert status == 130 and "Interrupted" in said.err and "1 files to take home" in said.out
    assert len(read_records(tmp_path / "results")) == 1 and (tmp_path / "out" / "parcels.json").exists()
    assert signal.getsignal(getattr(signal, sign)) == signal.SIG_DFL


def test_processes_that_would_each_normalise_their_share_make_no_run_of_a_table(data, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "size", lambda: 2)
    monkeypatch.setattr(parallel, "rank", lambda: 0)
    monkeypatch.setattr(parallel, "from_first", lambda value: value)
    job, = plan(4, TINY, data.name, models=["LeViT"])
    outcome = job.perform(data, Place(tmp_path / "results", tmp_path / "checkpoints"), progress=False)
    assert not outcome.done and "train it in one process" in outcome.text and not list(tmp_path.glob("results/*"))
