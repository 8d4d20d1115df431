"""Nothing computed is lost: kills at random moments, full disks, two writers, and files from strangers."""
from __future__ import annotations

import copy
import hashlib
import io
import itertools
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import torch
from blank import scored
from test_records import a_record
from test_train import colours, net, same_weights, train
from torch import nn

import vixlib as vix
from vixlib import files
from vixlib.data.archives import unpack
from vixlib.files import write_atomic
from vixlib.report.records import read_records, write_record
from vixlib.train.checkpoint import peek

HERE = Path(__file__).resolve().parent
# Python and torch take seconds to start: one process has them ready and forks for each task that it reads. A task is a
# Python expression over what is imported here; the process that does it is killed, or ends by itself.
FORKER = f"""
import os, sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent)!r}]
import torch
torch.set_num_threads(1)
from test_promises_files import train_to_the_end, write_for_ever, write_records
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        exec(line)
        os._exit(0)
    print(pid, flush=True)
    if "write_records" not in line:  # those run side by side
        os.waitpid(pid, 0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


@pytest.fixture(scope="module")
def forker():
    with subprocess.Popen([sys.executable, "-c", FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}) as process:
        yield process
        process.stdin.close()


def begin(forker: subprocess.Popen, task: str) -> int:
    """Start `task` in a process of its own; its number."""
    print(task, file=forker.stdin, flush=True)
    return int(forker.stdout.readline())


def write_for_ever(folder: str) -> None:
    """Numbers that belong together: a file that mixes two versions, or lacks a part, cannot pass."""
    for number in itertools.count(time.monotonic_ns()):
        body = str(number).encode() * 50_000
        write_atomic(Path(folder) / "run.pt", hashlib.sha256(body).hexdigest().encode() + body)
        write_record(a_record(seed=number % 3, images_per_second=number, peak_memory_bytes=number),
                     Path(folder) / "results")


def train_to_the_end(folder: str) -> None:
    model, _ = train(epochs=6, checkpoint=Path(folder) / "run.pt")
    torch.save(model.state_dict(), Path(folder) / "weights.pt")


def write_records(folder: str, who: int) -> None:
    """Every second record is the same run's for all writers. The file done-<who> says at the end what went wrong."""
    trouble = "no end"
    try:
        for seed in range(60):
            write_record(a_record(seed=seed if seed % 2 else 1000 * who + seed, **scored(who)), folder)
        trouble = ""
    except OSError as error:
        trouble = str(error)
    finally:
        Path(folder, f"done-{who}").write_text(trouble)


def abandoned(folder: Path) -> list[str]:
    """Temporary files, once they are no longer young."""
    for path in folder.glob(".*.tmp"):
        os.utime(path, (0, 0))
    return [path.name for path in folder.glob(".*.tmp")]


def test_thirty_kills_leave_every_file_whole_and_nothing_behind(tmp_path, forker):
    moments, found, file = random.Random(0), set(), tmp_path / "run.pt"
    for _ in range(30):
        before = file.stat().st_ino if file.exists() else None
        process = begin(forker, f"write_for_ever({str(tmp_path)!r})")
        while not file.exists() or file.stat().st_ino == before:
            time.sleep(0.001)  # however slow the disk is, the kill falls into later writes
        time.sleep(moments.uniform(0, 0.1))
        os.kill(process, signal.SIGKILL)
        content = file.read_bytes()
        assert hashlib.sha256(content[64:]).hexdigest().encode() == content[:64]
        found.add(content[:64])
        for record in read_records(tmp_path / "results"):
            number = record["images_per_second"]
            assert number == record["peak_memory_bytes"] and number % 3 == record["seed"]
    assert len(found) > 10, "the kills are to hit different moments"
    begin(forker, "pass")  # is begun when the last one is dead, and its locks with it
    for folder in (tmp_path, tmp_path / "results"):
        abandoned(folder)
        write_atomic(folder / "next", "")
        assert not abandoned(folder)


def test_kills_in_training_change_nothing_in_the_end(tmp_path, forker):
    moments, seen = random.Random(1), set()
    for _ in range(5):
        process = begin(forker, f"train_to_the_end({str(tmp_path)!r})")
        time.sleep(moments.uniform(0.02, 0.3))
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            break  # it was done
        found = peek(tmp_path / "run.pt")  # the old or the new one, but whole
        history = found.run.history if found else []
        seen.add(len(history))
        assert [epoch["epoch"] for epoch in history] == list(range(1, len(history) + 1))
    resumed, run = train(epochs=6, checkpoint=tmp_path / "run.pt")
    assert run.finished and same_weights(resumed, train(epochs=6)[0])


class Full(io.FileIO):
    """A file on a disk with room for `room` bytes."""

    room = 0

    def write(self, data):
        if self.tell() + len(data) > self.room:
            super().write(data[: self.room - self.tell()])
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("room", [0, 1, 1000, 4095])
@pytest.mark.parametrize("what", ["checkpoint", "record"])
def test_a_disk_that_is_full_after_some_bytes_keeps_what_was_there(tmp_path, monkeypatch, what, room):
    path = tmp_path / "run.pt"
    if what == "checkpoint":
        train(checkpoint=path, epochs=1)
    else:
        path = write_record(a_record(**scored(1)), tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr(Full, "room", room if what == "checkpoint" else min(room, 100))
    monkeypatch.setattr(files, "open", lambda file, mode: Full(file, mode), raising=False)
    with pytest.raises(OSError, match=rf"cannot write .*{path.name}: No space left on device; .*unchanged"):
        train(checkpoint=path, epochs=2) if what == "checkpoint" else write_record(a_record(**scored(2)), tmp_path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    monkeypatch.undo()
    if what == "checkpoint":
        assert train(checkpoint=path, epochs=2)[1].finished


def test_two_processes_lose_and_double_no_record(tmp_path, forker):
    for who in (1, 2):
        begin(forker, f"write_records({str(tmp_path)!r}, {who})")
    while not all((tmp_path / f"done-{who}").exists() for who in (1, 2)):
        time.sleep(0.01)
    assert [(tmp_path / f"done-{who}").read_text() for who in (1, 2)] == ["", ""]
    seeds = sorted(record["seed"] for record in read_records(tmp_path))
    shared, own = list(range(1, 60, 2)), list(range(0, 60, 2))
    assert seeds == sorted([*shared, *(1000 + seed for seed in own), *(2000 + seed for seed in own)])
    assert not abandoned(tmp_path)


def test_a_file_being_written_is_not_taken_for_abandoned(tmp_path):
    held, left = tmp_path / ".0123456789ab.tmp", tmp_path / ".ba9876543210.tmp"
    with open(held, "wb") as file:
        assert files._lock(file)
        left.write_bytes(b"")
        for path in (held, left):
            os.utime(path, (0, 0))
        write_atomic(tmp_path / "file", "new")
        assert held.exists() and not left.exists()


# ---- files from strangers ---------------------------------------------------------------------------------------

class Malicious:
    """What a pickle runs when it is loaded without weights_only."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("where", ["everything", "run", "model", "plain pickle", "protocol 4"])
def test_a_checkpoint_with_code_in_it_is_refused_in_one_sentence(tmp_path, where):
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=1)
    code, state = Malicious(tmp_path / "broken-in"), torch.load(path, weights_only=True)
    if where in ("run", "model"):
        state[where]["more"] = code
        torch.save(state, path)
    elif where == "everything":
        torch.save(code, path)
    else:
        path.write_bytes(pickle.dumps({**state, "more": code}, protocol=4 if "4" in where else 2))
    for load in (peek, lambda path: train(checkpoint=path, epochs=2)):
        with pytest.raises(ValueError, match=r"run\.pt is truncated or not one of vixlib's .*delete it") as caught:
            load(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not (tmp_path / "broken-in").exists()


def test_a_checkpoint_cut_at_any_byte_or_with_one_changed_is_refused_or_whole(tmp_path):
    path = tmp_path / "run.pt"
    model, _ = train(checkpoint=path, epochs=1)
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(40):
        path.write_bytes(whole[: draw.randrange(len(whole))])
        with pytest.raises(ValueError, match="truncated or not one of vixlib's"):
            peek(path)
    for _ in range(120):
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1:])
        try:
            again, run = train(checkpoint=path, epochs=1)
            assert [epoch["epoch"] for epoch in run.history] == [1] and same_weights(again, model)
        except ValueError as error:
            assert "truncated or not one of vixlib's" in str(error)


@pytest.mark.parametrize(("field", "value"), [("layout", None), ("data", 3), ("order", "x"), ("model", {}),
                                              ("optimizer", {}), ("run", {}), ("scaler", None)])
def test_a_checkpoint_with_a_field_of_another_kind_is_refused_in_one_sentence(tmp_path, field, value):
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=1)
    torch.save({**torch.load(path, weights_only=True), field: value}, path)
    with pytest.raises(ValueError, match="truncated or not one of vixlib's .*delete it to start anew"):
        train(checkpoint=path, epochs=2)


def test_nothing_is_ever_loaded_as_code():
    loads = [line.strip() for path in (HERE.parent / "vixlib").rglob("*.py") for line in path.read_text().splitlines()
             if "torch.load(" in line or "pickle.load" in line]
    assert len(loads) >= 2 and all("weights_only=True" in line for line in loads), loads


def archive(path: Path, entries: dict[str, object]) -> Path:
    """A .zip or .tar.gz of `entries`: name -> content, or a tar type for something that is no file."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as made:
            for name, content in entries.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = 0o120777 << 16 if content == tarfile.SYMTYPE else 0o100644 << 16
                made.writestr(entry, content)
        return path
    with tarfile.open(path, "w:gz") as made:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            if content in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
                entry.type, entry.linkname = content, "/etc/passwd"
                made.addfile(entry)
            else:
                entry.size = len(content)
                made.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize(("name", "content"), [
    ("../outside", b"x"), ("set/../../outside", b"x"), ("/tmp/outside", b"x"), ("other/file", b"x"), ("outside", b"x"),
    ("set/..\\outside", b"x"), ("set/link", tarfile.SYMTYPE), ("set/hard", tarfile.LNKTYPE),
    ("set/dev", tarfile.CHRTYPE)])
def test_archives_write_nowhere_but_into_their_folder(tmp_path, suffix, name, content):
    if suffix == ".zip" and content in (tarfile.LNKTYPE, tarfile.CHRTYPE):
        pytest.skip("a zip archive has none")
    (tmp_path / "in").mkdir()
    path = archive(tmp_path / f"made{suffix}", {"set/good": b"good", name: content})
    with pytest.raises(ValueError, match=r"no plain file below set/; nothing was unpacked"):
        unpack(path, tmp_path / "in", "set")
    assert os.listdir(tmp_path / "in") == [] and sorted(os.listdir(tmp_path)) == ["in", path.name]


@pytest.mark.parametrize("entries", [{}, {"set": b"a file"}])
def test_an_archive_without_files_leaves_the_old_folder(tmp_path, entries):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/old").write_text("old")
    with pytest.raises(ValueError, match="holds no files in set/"):
        unpack(archive(tmp_path / "made.zip", entries), tmp_path, "set")
    assert (tmp_path / "set/old").read_text() == "old"


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_archives_are_unpacked_whole_or_not_at_all(tmp_path, suffix):
    path = archive(tmp_path / f"made{suffix}", {"set/a/one": b"1" * 9999, "set/two": random.Random(0).randbytes(9999)})
    (tmp_path / "in").mkdir()
    assert unpack(path, tmp_path / "in", "set") == tmp_path / "in" / "set"
    assert (tmp_path / "in/set/a/one").read_bytes() == b"1" * 9999 and len(os.listdir(tmp_path / "in/set")) == 2
    path.write_bytes(path.read_bytes()[:-5000])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="truncated or no archive .*download again"):
        unpack(path, tmp_path / "empty", "set")
    assert os.listdir(tmp_path / "empty") == []


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", "deflated.zip", "bzip2.zip", "lzma.zip"])
def test_a_flipped_byte_anywhere_in_the_content_is_found(tmp_path, suffix):
    path, content = tmp_path / f"made{suffix}", random.Random(0).randbytes(50_000)
    if suffix.endswith(".zip"):
        with zipfile.ZipFile(path, "w", getattr(zipfile, f"ZIP_{suffix[:-4].upper()}")) as made:
            made.writestr("set/a", content)
    else:
        entry = tarfile.TarInfo("set/a")
        entry.size = len(content)
        with tarfile.open(path, f"w:{suffix[5:]}") as made:
            made.addfile(entry, io.BytesIO(content))
    for place in (0.3, 0.7):
        flipped = bytearray(path.read_bytes())
        flipped[int(place * len(flipped))] ^= 1
        (tmp_path / f"flipped{suffix}").write_bytes(flipped)
        with pytest.raises(ValueError, match="is truncated or no archive .*download again"):
            unpack(tmp_path / f"flipped{suffix}", tmp_path / "in", "set")
        assert not (tmp_path / "in" / "set").exists()
    assert (unpack(path, tmp_path / "in", "set") / "a").read_bytes() == content


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize(("names", "error", "message"), [
    (("set/a", "set/a/b"), ValueError, "holds 'set/a/b', which is no plain file below set/"),
    (("set/a/b", "set/a"), ValueError, "holds 'set/a/b', which is no plain file below set/"),
    (("set/" + "n" * 300,), OSError, "cannot unpack .*made.* into .*in/set: File name too long")])
def test_entries_that_cannot_be_written_are_refused(tmp_path, suffix, names, error, message):
    with pytest.raises(error, match=message):
        unpack(archive(tmp_path / f"made{suffix}", dict.fromkeys(names, b"x")), tmp_path / "in", "set")
    assert not (tmp_path / "in").exists() or os.listdir(tmp_path / "in") == []


def test_an_encrypted_archive_is_refused(tmp_path):
    path = archive(tmp_path / "made.zip", {"set/a": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the list of contents
    path.write_bytes(content)
    with pytest.raises(ValueError, match="made.zip holds 'set/a', which is no plain file"):
        unpack(path, tmp_path / "in", "set")


@pytest.mark.parametrize("there", ["link", "file"])
def test_what_is_no_folder_is_not_replaced_by_one(tmp_path, there):
    target = tmp_path / "set"
    target.symlink_to(tmp_path) if there == "link" else target.write_text("mine")
    with pytest.raises(ValueError, match="set is a link or a file.*move it away"):
        unpack(archive(tmp_path / "made.zip", {"set/a": b"x"}), tmp_path, "set")
    assert target.is_symlink() or target.read_text() == "mine"


def test_a_download_with_another_checksum_is_refused(tmp_path, monkeypatch):
    from vixlib.data import sources

    wrong = archive(tmp_path / "tiny-imagenet-200.zip", {"tiny-imagenet-200/train/a/1.jpg": b"x"})
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", lambda url, path: shutil.copy(wrong, path))
    with pytest.raises(RuntimeError, match=r"could not be downloaded .*corrupted"):
        sources.download("tiny-imagenet", tmp_path / "in")
    assert not (tmp_path / "in/tiny-imagenet-200").exists()


def test_a_checkpoint_of_another_run_names_the_first_difference(tmp_path):
    train(checkpoint=tmp_path / "run.pt", epochs=1)
    for changes, difference in (({"lr": 0.5}, r"config differ: lr is 0\.001 in the checkpoint, 0\.5 here"),
                                ({"deterministic": True}, "deterministic is False in the checkpoint, True here"),
                                ({"model": net(width=9)}, r"layers\.0\.weight is \[8, 3, 3, 3\]"),
                                ({"data": colours(train=30)}, "train_images is 60")):
        with pytest.raises(ValueError, match=difference):
            train(checkpoint=tmp_path / "run.pt", **changes)
    assert json.dumps(peek(tmp_path / "run.pt").run.to_dict())


@pytest.mark.parametrize(("config", "edit", "words"), [
    ({}, lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(1)), r"exp_avg is \[1\]"),
    ({}, lambda s: s["optimizer"]["state"][1].update(exp_avg_sq="x"), "exp_avg_sq is nothing"),
    ({}, lambda s: s["optimizer"]["state"].update({99: s["optimizer"]["state"][0]}), "out of range"),
    ({}, lambda s: s["optimizer"].update(state={}), "no moments"),
    ({"sgd_from": 1}, lambda s: s["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(1)), "momentum_buffer"),
    ({}, lambda s: next(iter(s["model"].values())).fill_(torch.nan), "is not finite"),
    ({}, lambda s: s["model"].update({n: t.double() for n, t in s["model"].items()}), "float64 in the checkpoint"),
    ({}, lambda s: s["run"].update(train_seconds=-1), "train_seconds=-1")])
def test_a_checkpoint_whose_numbers_are_not_the_models_is_refused(tmp_path, config, edit, words):
    """Fused optimisers write by the shapes that they are given: the process would end."""
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=1, **config)
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)
    model = net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"run.pt is truncated or not one of vixlib's .*{words}"):
        train(model=model, checkpoint=path, epochs=2, **config)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_optimisers_settings_are_the_configs_whatever_a_checkpoint_says(tmp_path):
    path = tmp_path / "run.pt"
    whole, _ = train(epochs=2)
    train(checkpoint=path, epochs=1)
    state = torch.load(path, weights_only=True)
    state["optimizer"]["param_groups"][0].update(weight_decay=5.0, maximize=True)
    torch.save(state, path)
    assert same_weights(train(checkpoint=path, epochs=2)[0], whole)


def test_numbers_and_names_of_numpys_kinds_can_be_read_back(tmp_path):
    class Number(float):  # as np.float64 is
        pass

    class Name(str):  # as np.str_ is
        pass

    data = colours()
    data = replace(data, name=Name(data.name), classes=tuple(map(Name, data.classes)))
    for epochs in (1, 2):
        _, run = train(data=data, checkpoint=tmp_path / "run.pt", epochs=epochs, lr=Number(1e-3),
                       betas=(Number(0.9), 0.99))
    assert run.finished and len(run.history) == 2


def test_a_state_that_could_not_be_read_back_is_refused_before_an_epoch_is_trained(tmp_path):
    class Dated(nn.Sequential):
        def get_extra_state(self):
            return date(2021, 7, 5)

        def set_extra_state(self, state):
            pass

    with pytest.raises(ValueError, match="run.pt could not be read back: .*get_extra_state"):
        train(model=Dated(nn.Flatten(), nn.Linear(192, 3)), checkpoint=tmp_path / "run.pt",
              on_epoch=lambda run: pytest.fail("an epoch was trained"))


@pytest.mark.parametrize(("before", "after", "words"), [
    ({"heads": 2, "dim_head": 8}, {"heads": 4, "dim_head": 4}, "mixer.heads is 2"),
    ({"mixer": "performer"}, {"mixer": "performer", "kernel": "relu"}, "mixer.kernel is 'favor'"),
    ({"position": "rope"}, {"position": "rope", "rope_base": 10.0}, "position.base is 10000.0")])
def test_a_host_built_by_its_class_is_told_by_its_parts_settings(tmp_path, before, after, words):
    def host(**options):
        return vix.ViX(**{**dict(patch_size=4, image_size=8, num_classes=3, dim=16, depth=1, heads=2, dim_head=8,
                                 mlp_dim=16), **options})

    train(model=host(**before), checkpoint=tmp_path / "run.pt", epochs=1)
    with pytest.raises(ValueError, match=f"what the models are made of differ: setting .*{words}"):
        train(model=host(**after), checkpoint=tmp_path / "run.pt", epochs=2)


def test_a_part_that_counts_its_calls_goes_on(tmp_path):
    class Counting(nn.Flatten):
        calls = 0

        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    model = nn.Sequential(Counting(), nn.Linear(192, 3))
    for epochs in (1, 2):  # eval_batch_size changes speed and memory alone
        _, run = train(model=model, checkpoint=tmp_path / "run.pt", epochs=epochs, eval_batch_size=epochs)
    assert run.finished and model[0].calls > 0


def test_plain_extra_state_is_kept(tmp_path):
    class Counting(nn.Sequential):
        seen = 0

        def forward(self, x):
            self.seen += len(x) * self.training
            return super().forward(x)

        def get_extra_state(self):
            return {"seen": self.seen}

        def set_extra_state(self, state):
            self.seen = state["seen"]

    for epochs in (1, 2):
        model, run = train(model=Counting(nn.Flatten(), nn.Linear(192, 3)), checkpoint=tmp_path / "run.pt",
                           epochs=epochs)
    assert run.finished and model.seen == 120


def test_a_frozen_parameter_may_be_a_mask_of_infinities(tmp_path):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.map, self.mask = nn.Linear(192, 3), nn.Parameter(torch.tensor([0.0, -torch.inf]), requires_grad=False)

        def forward(self, x):
            return self.map(x.flatten(1))

    for epochs in (1, 2):
        _, run = train(model=Masked(), checkpoint=tmp_path / "run.pt", epochs=epochs)
    assert run.finished


def test_a_link_to_itself_becomes_the_file(tmp_path):
    (tmp_path / "link").symlink_to("link")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").read_text() == "new"


def test_of_a_link_the_file_behind_it_is_written_and_keeps_its_permissions(tmp_path):
    (tmp_path / "there").write_text("old")
    (tmp_path / "there").chmod(0o600)
    (tmp_path / "link").symlink_to("there")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there").read_text() == "new"
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o600


class Stretched(torch.nn.Module):
    """A buffer whose numbers share their memory: a state that no state can be loaded into."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3072, 10)
        self.register_buffer("scale", torch.ones(1).expand(10))

    def forward(self, images):
        return self.head(images.flatten(1)) * self.scale


class Retyped(Stretched):
    """A counter that is of another type after the first call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(10, dtype=torch.int64))

    def forward(self, images):
        self.scale = self.scale + 0.5 * self.training
        return super().forward(images)


def test_a_state_that_cannot_be_loaded_again_is_no_checkpoint(tmp_path):
    data = vix.load("shapes", train=24, test=8)
    once, place = vix.TrainConfig(epochs=1), {"checkpoint": tmp_path / "run.pt", "device": "cpu", "progress": False}
    for model, words in ((Stretched(), "run.pt could not be read back: RuntimeError"),
                         (Retyped(), "scale of model=Retyped has another shape or type")):
        with pytest.raises(ValueError, match=words):
            vix.fit(model, data, once, **place)
        assert not (tmp_path / "run.pt").exists()
