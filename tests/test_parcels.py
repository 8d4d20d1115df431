"""Bringing results home: what arrives is what left, nothing better is overwritten, nothing false is let in."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from test_records import a_record
from test_reproduce import TINY, go

import vixlib as vix
from vixlib.data.shapes import make_shapes
from vixlib.report.memory import WAYS
from vixlib.report.records import read_records, record_name
from vixlib.reproduce import command as reproduce
from vixlib.reproduce import parcels
from vixlib.reproduce.jobs import Place
from vixlib.train import in_use

LONGER = dataclasses.replace(TINY, train=vix.TrainConfig(epochs=3, batch_size=32))


@pytest.fixture(scope="module")
def data():
    return make_shapes(train=64, test=32)


@pytest.fixture(scope="module")
def away(data, tmp_path_factory) -> Path:
    """A borrowed machine: a finished run of ViT, one epoch of ViL's, measured batches, and all of it packed in out."""
    folder = tmp_path_factory.mktemp("away")
    jobs = reproduce.plan(1, LONGER, data.name, models=["ViT", "ViL"])
    go(jobs[:1], data, folder)
    go(jobs, data, folder, minutes=1e-9)
    (folder / "results" / "batches").mkdir()
    batches = folder / "results" / "batches" / "ViT_in-16-GB.json"
    batches.write_text(json.dumps({"model": "ViT", "config": "paper", "position": "learned", "memory_limit_gb": 16.0,
                                   "largest_batch": dict.fromkeys(WAYS, 64), "device": "T4", "finished": "2026"}))
    assert parcels.export(contents(folder), folder / "out") == []
    return folder


def contents(folder: Path) -> dict[str, Path]:
    return parcels.contents(folder / "results", folder / "checkpoints")


def merge(out: Path, home: Path) -> list[str]:
    return [line.split()[0] for line in parcels.merge(out, home / "results", home / "checkpoints")]


@pytest.fixture
def out(away, tmp_path) -> Path:
    """A copy of the parcels, to be spoilt."""
    return Path(shutil.copytree(away / "out", tmp_path / "out"))


def edit(out: Path, **changes) -> None:
    listing = json.loads((out / parcels.LIST).read_text())
    (out / parcels.LIST).write_text(json.dumps({**listing, **changes}))


def test_a_run_begun_away_is_finished_at_home_as_if_it_had_never_travelled(away, data, tmp_path):
    names = sorted(contents(away))
    assert [name.split("/")[0] for name in names] == ["checkpoints", "results", "results"]  # no finished checkpoint
    assert merge(away / "out", tmp_path) == ["taken"] * 3 and sorted(contents(tmp_path)) == names
    for name, path in contents(tmp_path).items():
        assert path.read_bytes() == contents(away)[name].read_bytes()
    assert merge(away / "out", tmp_path) == ["kept"] * 3
    jobs = reproduce.plan(1, LONGER, data.name, models=["ViT", "ViL"])
    assert [len(run.history) for job in jobs if (run := job.progress(tmp_path / "checkpoints"))] == [1]
    assert go(jobs, data, tmp_path) == 0
    go(jobs, data, tmp_path / "straight")
    ours, straight = ([[{**epoch, "seconds": 0} for epoch in record["history"]]
                       for record in read_records(folder / "results")] for folder in (tmp_path, tmp_path / "straight"))
    assert ours == straight
    # The parcels once more: what was one epoch old is a record here now.
    assert merge(away / "out", tmp_path) == ["kept"] * 3 and read_records(tmp_path / "results")


def test_what_is_more_complete_here_stays_and_what_is_damaged_here_is_replaced(away, data, tmp_path):
    job = reproduce.plan(1, LONGER, data.name, models=["ViL"])[0]
    for _ in range(2):
        go([job], data, tmp_path, minutes=1e-9)
    path = tmp_path / "checkpoints" / f"{job.name}.pt"
    two_epochs = path.read_bytes()
    merge(away / "out", tmp_path)
    assert path.read_bytes() == two_epochs
    path.write_bytes(b"damaged")
    merge(away / "out", tmp_path)
    assert len(job.progress(tmp_path / "checkpoints").history) == 1


def test_a_newer_record_is_taken_and_an_older_one_is_not(away, tmp_path):
    merge(away / "out", tmp_path)
    path = next((tmp_path / "results").glob("*.json"))
    record = json.loads(path.read_text())
    for finished, expected in (("2000-01-01T00:00:00+00:00", "taken"), ("2100-01-01T00:00:00+00:00", "kept")):
        path.write_text(json.dumps({**record, "finished": finished}))
        said = parcels.merge(away / "out", tmp_path / "results", tmp_path / "checkpoints")
        assert next(line for line in said if path.name in line).startswith(expected)


def refused(out: Path, home: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merge(out, home)
    assert not (home / "results").exists() and not (home / "checkpoints").exists()  # nothing at all is taken in


def test_a_changed_parcel_is_refused(out, tmp_path):
    parcel = out / "parcel-0"
    content = bytearray(parcel.read_bytes())
    content[len(content) // 2] ^= 1
    parcel.write_bytes(content)
    refused(out, tmp_path / "home", "parcel-0 is damaged or has been changed")
    parcel.unlink()
    refused(out, tmp_path / "home", "parcel-0 is missing")


def exported(folder: Path, name: str, content: bytes) -> Path:
    """Parcels that hold `content` by the name of `name`."""
    path = folder / "content"
    path.write_bytes(content)
    out = folder / f"out{len(list(folder.iterdir()))}"
    assert parcels.export({name: path}, out) == []
    return out


@pytest.mark.parametrize("name", ["../escaped.json", "results/../../escaped.json", "/tmp/escaped.json",
                                  "results/.hidden.json", "checkpoints/run.py", "results/sub/run.json",
                                  "checkpoints\\\\run.pt", "results/run.json\n"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    refused(exported(tmp_path, name, b"{}"), tmp_path / "home", "which is neither a record nor a checkpoint")
    assert not list(tmp_path.rglob("escaped*"))


def test_a_link_in_a_parcel_is_refused(out, tmp_path):
    entry = tarfile.TarInfo("results/run.json")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(out / "parcel-0", "w") as archive:
        archive.addfile(entry)
    edit(out, parcels={"parcel-0": hashlib.sha256((out / "parcel-0").read_bytes()).hexdigest()}, files=[entry.name])
    refused(out, tmp_path / "home", "is no plain file")


def test_a_sparse_entry_which_may_read_as_any_number_of_bytes_is_refused(tmp_path):
    entry = tarfile.TarInfo("results/x.json")
    entry.type = tarfile.GNUTYPE_SPARSE
    header, size = bytearray(entry.tobuf(format=tarfile.GNU_FORMAT)), tarfile.itn(3 * 10**11, 12, tarfile.GNU_FORMAT)
    header[386:398], header[398:410], header[483:495] = size, tarfile.itn(0, 12, tarfile.GNU_FORMAT), size
    header[148:156] = b"%06o\0 " % (8 * ord(" ") + sum(header[:148]) + sum(header[156:512]))
    with pytest.raises(ValueError, match=r"results/x\.json in .* is no plain file"):
        parcels._members(bytes(header) + bytes(10240), tmp_path)


def test_the_checkpoint_of_a_run_that_is_being_trained_is_not_overwritten(away, tmp_path, monkeypatch):
    monkeypatch.setattr(in_use, "PATIENCE", 0.0)
    merge(away / "out", tmp_path)
    checkpoint, = (tmp_path / "checkpoints").iterdir()
    checkpoint.write_bytes(b"")
    with in_use.alone(checkpoint):
        said = parcels.merge(away / "out", tmp_path / "results", tmp_path / "checkpoints")
        assert f"kept    checkpoints/{checkpoint.name}: it is being trained; import once more afterwards" in said
        assert checkpoint.read_bytes() == b""
    assert "taken" in merge(away / "out", tmp_path) and checkpoint.read_bytes()


def test_what_a_killed_call_had_made_is_in_the_next_export(away, tmp_path):
    home = Path(shutil.copytree(away, tmp_path / "home"))
    results, checkpoints = home / "results", home / "checkpoints"
    before = parcels.before_export(results, checkpoints)
    (results / "new.json").write_text("{}")                       # and then it is killed
    assert parcels.before_export(results, checkpoints) == before and "results/new.json" not in before
    parcels.exported(checkpoints)
    assert "results/new.json" in parcels.before_export(results, checkpoints)


def test_what_had_no_room_in_an_export_is_in_the_next(away, tmp_path, monkeypatch, capsys):
    home = Path(shutil.copytree(away, tmp_path / "home"))
    place = Place(home / "results", home / "checkpoints")
    before = parcels.before_export(place.results, place.checkpoints)
    for name, size in (("a", 4_000), ("b", 5_000), ("c", 500_000)):
        (place.checkpoints / f"{name}.pt").write_bytes(bytes(size))
    monkeypatch.setattr(parcels, "PARCELS", 1)
    monkeypatch.setattr(parcels, "PARCEL_BYTES", parcels.TAR_BYTES + 6_000)
    for out, packed, left in ((1, "a", "b"), (2, "b", None)):
        reproduce._export(tmp_path / f"out{out}", before, place)
        assert list(parcels.unpack(tmp_path / f"out{out}")) == [f"checkpoints/{packed}.pt"]
        said = capsys.readouterr().out
        assert "left out, too large: checkpoints/c.pt" in said
        assert ("no room beside the others, for the next --export: checkpoints/b.pt" in said) == (left == "b")
        before = parcels.before_export(place.results, place.checkpoints)


def test_contents_that_are_not_what_their_name_says_are_refused(away, out, tmp_path):
    record = next(path for name, path in contents(away).items() if name.count("/") == 1 and name.endswith("json"))
    for name in ("results/another.json", "checkpoints/record.pt", "memory/zz.json", "results/batches/zz.json"):
        refused(exported(tmp_path, name, record.read_bytes()), tmp_path / "home",
                "is not what its name says|is truncated or not one of vixlib's")
    edit(out, files=["results/another.json"])
    refused(out, tmp_path / "home", "hold other files than parcels.json says")
    edit(out, parcels={"parcel-1": "0" * 64})
    refused(out, tmp_path / "home", r"parcels\.json is damaged .*export again")
    edit(out, parcels={"parcel-0": "0" * 64})
    refused(out, tmp_path / "home", "its checksum is another")
    edit(out, format=1)
    refused(out, tmp_path / "home", "format 1 instead of 2")
    (out / parcels.LIST).write_text("{")
    refused(out, tmp_path / "home", "is damaged")
    refused(tmp_path, tmp_path / "home", "holds no parcels.json")


def test_large_files_are_cut_to_fit_and_what_does_not_fit_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(parcels, "PARCEL_BYTES", 10_000)                         # seven of them in all
    generator = torch.Generator().manual_seed(0)
    files = {}
    for name, size in (("a.json", 10), ("b.pt", 25_000), ("huge.pt", 60_000), ("c.pt", 26_900), ("d.pt", 9_000)):
        path = tmp_path / name
        path.write_bytes(bytes(torch.randint(256, (size,), generator=generator).tolist()))
        files[f"{'results' if name.endswith('json') else 'checkpoints'}/{name}"] = path
    assert parcels.export(files, tmp_path / "out") == ["checkpoints/huge.pt", "checkpoints/d.pt"]
    packed = list((tmp_path / "out").iterdir())
    assert len(packed) == 8 and max(path.stat().st_size for path in packed) <= 10_000
    taken = ("results/a.json", "checkpoints/b.pt", "checkpoints/c.pt")
    assert parcels.unpack(tmp_path / "out") == {name: files[name].read_bytes() for name in taken}
    with pytest.raises(ValueError, match="holds parcels already"):
        parcels.export(files, tmp_path / "out")


def test_nothing_new_makes_an_empty_export(tmp_path):
    assert parcels.export({}, tmp_path) == [] and [path.name for path in tmp_path.iterdir()] == [parcels.LIST]
    assert parcels.merge(tmp_path, tmp_path / "results", tmp_path / "checkpoints") == []


@pytest.mark.parametrize("changes", [{"last_top1": "abc"}, {"train": {}}, {"history": [1]}, {"options": None},
                                     {"finished": 5}])
def test_a_damaged_record_in_a_parcel_is_refused(tmp_path, changes):
    record = {**a_record(), **changes}
    name = record_name(a_record())
    (tmp_path / name).write_text(json.dumps(record))
    parcels.export({f"results/{name}": tmp_path / name}, tmp_path / "out")
    refused(tmp_path / "out", tmp_path / "home", "is not what its name says")


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    """glob finds nothing there, and what was made would be left behind."""
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    assert contents(tmp_path) == {}
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PermissionError, match="results"):
        contents(tmp_path)


def test_what_an_export_was_begun_with_is_no_record_even_in_one_folder_for_all(tmp_path, monkeypatch):
    monkeypatch.setitem(reproduce.PROFILES, "smoke", TINY)
    words = ["--table", "1", "--profile", "smoke", "--models", "ViT", "--export", str(tmp_path / "out")]
    both = tmp_path / "both"
    assert reproduce.main([*words, "--results", str(both), "--checkpoints", str(both)]) == 0
    before, = parcels.merge(tmp_path / "out", tmp_path / "results", tmp_path / "checkpoints")
    assert before.startswith("taken")
    parcels.before_export(both, both)  # and then it is killed
    assert len(read_records(both)) == 1


def test_runs_on_other_pictures_of_one_name_do_not_replace_each_other(data, tmp_path):
    jobs = reproduce.plan(1, LONGER, data.name, models=["ViT", "ViL"])
    other = dataclasses.replace(data, train_images=data.train_images.flip(0))
    for folder, pictures, epochs in ((tmp_path / "home", data, 1), (tmp_path / "away", other, 2)):
        go(jobs[:1], pictures, folder)
        for _ in range(epochs):  # ViL's checkpoint, which holds more of them away
            go(jobs, pictures, folder, minutes=1e-9)
    parcels.export(contents(tmp_path / "away"), tmp_path / "out")
    home = tmp_path / "home"
    before = {path: path.read_bytes() for path in contents(home).values()}
    said = parcels.merge(tmp_path / "out", home / "results", home / "checkpoints")
    assert len(said) == 2 and all("kept" in line and "of other pictures" in line for line in said)
    assert {path: path.read_bytes() for path in before} == before
