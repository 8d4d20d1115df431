"""Records: atomic writes, stable and distinct names, strict reading."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest
import torch
from blank import BLANK, scored

from vixlib import provenance
from vixlib.files import write_atomic
from vixlib.provenance import environment
from vixlib.report.records import read_records, record_name, write_record
from vixlib.train.run import Run


def a_record(**changes):
    record = dict(BLANK)
    record.update(dataset="cifar10", profile="quick", model="ViN", config="uniform", position="learned",
                  options={"patch_size": 4}, seed=0,
                  history=[{"epoch": 1, "loss": 0.1 + 0.2, "top1": 1.0, "top5": 2.0, "seconds": 3.0}])
    return {**record, **changes}


def test_written_bytes_and_text_come_back_and_replace_what_was_there(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    write_atomic(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    message = f"cannot write {re.escape(str(path))}: No space left.*unchanged"
    with pytest.raises(OSError, match=message) as caught:
        write_atomic(path, "new")
    assert caught.value.errno == 28
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", "new")
    assert os.listdir(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write .*file/inside"):
        write_atomic(tmp_path / "file" / "inside", "text")


def test_a_record_comes_back_whole_from_the_one_file_of_its_name(tmp_path):
    record = a_record()
    path = write_record(record, tmp_path)
    assert path.name == record_name(record)
    assert read_records(tmp_path) == [record]
    write_record({**record, **scored(60.0)}, tmp_path)
    assert [found["best_top1"] for found in read_records(tmp_path)] == [60.0]


def test_the_name_is_readable_stable_and_free_of_results():
    name = record_name(a_record())
    assert name == "cifar10_quick_ViN_uniform_learned_patch-size=4_seed0_" + name[-13:-5] + ".json"
    assert re.fullmatch(r"[0-9a-f]{8}", name[-13:-5])
    assert name == record_name(a_record(table=2, best_top1=50.0, device="other", started="later"))
    two = {"a": 1, "b": (2, 3)}
    assert record_name(a_record(options=two)) == record_name(a_record(options={"b": [2, 3], "a": 1}))


def test_differing_runs_never_share_a_name():
    runs = [a_record(), a_record(seed=1), a_record(options={}), a_record(options={"patch_size": "4"}),
            a_record(options={"patch_size": 4.0}), a_record(options={"patch-size": 4}),
            a_record(options={"patch_size": 4, "dim": 64}), a_record(options={"patch_size": True}),
            a_record(dataset="cifar10/jpg"), a_record(dataset="cifar10-jpg"), a_record(config="paper"),
            a_record(model="vin"), a_record(position="none"), a_record(profile="paper"),
            *(a_record(options={"long": "x" * 200 + end}) for end in "ab")]
    names = [record_name(run) for run in runs]
    assert len({name.lower() for name in names}) == len(runs)
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]{1,250}", name) for name in names)


def test_a_hostile_field_cannot_leave_the_folder(tmp_path):
    path = write_record(a_record(dataset="../../etc/passwd", model="..", options={"/": "\\\n"}), tmp_path)
    assert path.parent == tmp_path and os.listdir(tmp_path) == [path.name]


def test_missing_fields_and_numbers_that_json_lacks_are_named(tmp_path):
    record = a_record()
    del record["history"], record["commit"]
    with pytest.raises(ValueError, match="lacks history, commit"):
        write_record(record, tmp_path)
    with pytest.raises(ValueError, match="the record of 'ViN', seed 0, cannot be written as JSON"):
        write_record(a_record(best_top1=float("nan")), tmp_path)
    assert os.listdir(tmp_path) == []


def test_records_are_selected_by_their_fields(tmp_path):
    for seed in (1, 0):
        for model in ("ViP", "ViN"):
            write_record(a_record(model=model, seed=seed), tmp_path)
    assert [(r["model"], r["seed"]) for r in read_records(tmp_path)] == [
        ("ViN", 0), ("ViN", 1), ("ViP", 0), ("ViP", 1)]
    assert [r["seed"] for r in read_records(tmp_path, model="ViP", options={"patch_size": 4})] == [0, 1]
    assert read_records(tmp_path, model="ViT") == []
    assert read_records(tmp_path / "absent") == []
    with pytest.raises(TypeError, match="unknown fields.*modell"):
        read_records(tmp_path, modell="ViP")
    for field, value in (("seed", True), ("seed", 1.0), ("seed", "1"), ("table", True), ("model", None)):
        with pytest.raises(TypeError, match=rf"{field}=.* of read_records\(...\) has another type"):
            read_records(tmp_path, **{field: value})


def test_a_copied_record_is_no_second_seed(tmp_path):
    path = write_record(a_record(), tmp_path)
    (tmp_path / f"{path.stem} (1).json").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"\(1\)\.json is the record of .*; give it that name, or delete it"):
        read_records(tmp_path)


@pytest.mark.parametrize("field", ["options", "last_top1", "profile", "train", "history", "seed"])
def test_a_record_with_a_field_of_another_type_names_the_file(tmp_path, field):
    path = write_record(a_record(), tmp_path)
    path.write_text(json.dumps({**a_record(), field: None}))
    with pytest.raises(ValueError, match=rf"\.json: {field}=None of the record has another type"):
        read_records(tmp_path)


@pytest.mark.parametrize("epoch", [1, {}, {"epoch": 1, "loss": "low", "top1": 1.0, "top5": 2.0, "seconds": 3.0}])
def test_a_record_with_a_damaged_epoch_names_the_file(tmp_path, epoch):
    path = write_record(a_record(), tmp_path)
    path.write_text(json.dumps({**a_record(), "history": [epoch]}))
    with pytest.raises(ValueError, match=r"\.json: .*an epoch"):
        read_records(tmp_path)


@pytest.mark.parametrize(("field", "value"), [
    ("last_top1", float("nan")), ("best_top1", float("inf")), ("last_top1", 10**400), ("last_top1", -1), ("train", {}),
    ("train", {"epochs": "x"}), ("options", {"patch_size": 0}), ("options", {"patch_size": "x"}), ("config", None),
    ("images_per_second", "fast"), ("images_per_second", -1.0), ("params", {}), ("peak_memory_bytes", "a"),
    ("calls", [1]), ("calls", [{"from_epoch": 1, "device": "CPU"}]), ("pictures", [1]), ("pictures", {"channels": 3}),
    ("calls", [{"from_epoch": 1, "device": "CPU", "concurrent_runs": 0}]),
    ("pictures", {"image_size": [32], "channels": 3, "num_classes": 10})])
def test_a_record_with_a_value_that_no_run_has_names_the_file(tmp_path, field, value):
    path = write_record(a_record(), tmp_path)
    path.write_text(json.dumps({**a_record(), field: value}))
    with pytest.raises(ValueError, match=r"\.json: .*restore it or delete it"):
        read_records(tmp_path)


TRAIN = {"epochs": 1, "batch_size": 64}


@pytest.mark.parametrize("changes", [
    {"train": {"epochs": 1}}, *({"train": {**TRAIN, **bad}} for bad in (
        {"batch_size": "x"}, {"epochs": 0}, {"epochs": 10**30}, {"lr": "x"}, {"lr": float("nan")},
        {"augment": "flip"})), {"config": "weird"}, {"options": {"zz": {}}}, {"options": {"dim": [{}]}},
    {"params": {"true": -1, "as_paper": 1}}, {"seed": -1}, {"history": []},
    {"history": 2 * a_record()["history"]}, {"concurrent_runs": 0}])
def test_what_tables_could_not_compute_with_names_the_file_and_is_never_written(tmp_path, changes):
    (tmp_path / "other.json").write_text(json.dumps({**a_record(), **changes}))
    with pytest.raises(ValueError, match=r"other\.json: .*restore it or delete it"):
        read_records(tmp_path)
    with pytest.raises((TypeError, ValueError)):
        write_record(a_record(**changes), tmp_path)
    assert os.listdir(tmp_path) == ["other.json"]


@pytest.mark.parametrize("changes", [{"best_top1": 101}, {"best_top1": None}, {"history": "x"}, {"train": None},
                                     {"options": None}, {"options": [1]}])
def test_what_could_not_be_read_again_is_not_written(tmp_path, changes):
    with pytest.raises((TypeError, ValueError), match="^({})=".format("|".join(changes))):
        write_record(a_record(**changes), tmp_path)
    with pytest.raises(ValueError, match="folder='' is empty"):
        write_record(a_record(), "")
    assert os.listdir(tmp_path) == []


def test_a_record_by_a_newer_vixlib_is_read(tmp_path):
    record = a_record(train={**TRAIN, "grokking": {"x": 1}}, dreams=[{}], params={"true": 1, "as_paper": 1, "x": "y"})
    write_record(record, tmp_path)
    assert read_records(tmp_path) == [record]


def test_a_folder_that_may_not_be_read_is_not_empty(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    write_record(a_record(), tmp_path)
    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=f"folder='{tmp_path}' cannot be read: Permission denied; change its"):
        read_records(tmp_path)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_record(a_record(), "~/results")
    assert len(read_records("~/results")) == len(list((tmp_path / "results").iterdir())) == 1


def test_a_file_is_no_folder_of_records(tmp_path):
    path = write_record(a_record(), tmp_path)
    with pytest.raises(ValueError, match="is a file; name the folder"):
        read_records(path)


def test_a_folder_named_like_a_record_is_named(tmp_path):
    (tmp_path / "d.json").mkdir()
    with pytest.raises(ValueError, match=r"d\.json cannot be read"):
        read_records(tmp_path)


@pytest.mark.parametrize("content", [b'{"model": "ViN", ', b"[1]", b'{"model": "ViN"}', b"\xff\xfe"])
def test_a_damaged_record_is_an_error_that_names_the_file(tmp_path, content):
    write_record(a_record(), tmp_path)
    (tmp_path / "damaged.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.json"):
        read_records(tmp_path)


def test_environment_names_the_versions():
    found = environment("cpu")
    assert found["torch"] == torch.__version__ and found["device"].startswith("CPU")
    json.dumps(found, allow_nan=False)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    root = tmp_path.resolve() / "repository"
    (root / "vixlib").mkdir(parents=True)
    (root / "vixlib" / "code.py").write_text("one")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(provenance, "ROOT", root)
    return root


def git(root, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True,
                          text=True).stdout.strip()


def test_the_commit_tells_a_clean_package_from_a_changed_one(repository):
    assert environment("cpu")["commit"] is None  # no repository
    git(repository, "init")
    assert environment("cpu")["commit"] is None  # no commit
    git(repository, "add", ".")
    git(repository, "commit", "-m", "first")
    head = git(repository, "rev-parse", "HEAD")
    assert environment("cpu")["commit"] == head
    (repository / "notes.txt").write_text("outside the package")
    assert environment("cpu")["commit"] == head
    (repository / "vixlib" / "code.py").write_text("two")
    assert environment("cpu")["commit"] == head + "+changes"


def test_the_commit_of_a_surrounding_repository_is_not_ours(repository, monkeypatch):
    git(repository, "init")
    git(repository, "add", ".")
    git(repository, "commit", "-m", "first")
    monkeypatch.setattr(provenance, "ROOT", repository / "vixlib")
    assert environment("cpu")["commit"] is None


def test_a_hook_of_another_repository_does_not_lend_its_commit(repository, monkeypatch, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("one")
    for there in (repository, tmp_path / "other"):
        git(there, "init")
        git(there, "add", ".")
        git(there, "commit", "-m", f"first of {there.name}")
    own = environment("cpu")["commit"]
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert len(own) == 40 and environment("cpu")["commit"] == own


def test_a_pipe_among_records_is_named_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json is a pipe or device"):
        read_records(tmp_path)
    with pytest.raises(ValueError, match="is a pipe or device"):
        Run.load(tmp_path / "a.json")


@pytest.mark.parametrize("changes", [
    {"best_top1": 99.5}, {"last_top1": 98.0}, {"train": {**TRAIN, "seed": 7}},
    *({"history": [{**a_record()["history"][0], **damage}]} for damage in (
        {"epoch": 7}, {"epoch": 0}, {"loss": float("nan")}, {"seconds": -1.0}, {"top5": 0.5}))])
def test_a_record_that_contradicts_itself_is_refused(tmp_path, changes):
    (tmp_path / "other.json").write_text(json.dumps({**a_record(), **changes}))
    with pytest.raises(ValueError, match=r"other\.json: .*restore it or delete it"):
        read_records(tmp_path)
