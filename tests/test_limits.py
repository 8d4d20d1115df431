"""The largest batch by bisection, under a limit that is simulated here; what is measured on a GPU says so."""
from __future__ import annotations

import gc
import json
import weakref
from types import SimpleNamespace

import pytest
import torch

import vixlib as vix
from vixlib.data.shapes import make_shapes
from vixlib.errors import copied
from vixlib.measure import limits
from vixlib.measure.limits import cap_memory, largest_batch
from vixlib.report import memory
from vixlib.report.batches import largest_batches
from vixlib.report.rows import table_rows
from vixlib.reproduce import gpu_jobs
from vixlib.reproduce.gpu_jobs import BatchJob, ColumnsJob
from vixlib.reproduce.jobs import Place


class Card:
    """A step that fits up to `limit` images, and notes every attempt."""

    def __init__(self, limit: int) -> None:
        self.limit, self.tried = limit, []

    def __call__(self, batch: int) -> None:
        self.tried.append(batch)
        if batch > self.limit:
            raise torch.OutOfMemoryError("simulated")


@pytest.mark.parametrize("start", [1, 64, 1000])
@pytest.mark.parametrize("limit", [0, 1, 63, 64, 65, 192, 335, 336, 5000])
def test_bisection_finds_the_largest_batch_in_few_attempts(limit, start):
    card = Card(limit)
    assert largest_batch(card, start, most=4096) == min(limit, 4096)
    assert len(card.tried) <= 26 and len(set(card.tried)) == len(card.tried) and 0 < max(card.tried) <= 4096


def test_other_errors_are_not_taken_for_a_full_card():
    def broken(batch):
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        largest_batch(broken)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU says")
def test_without_a_gpu_nothing_is_capped_or_measured(tmp_path):
    cap_memory(None)
    with pytest.raises(ValueError, match="memory_gb=16 caps a GPU's memory, and there is none"):
        cap_memory(16)
    for job in (BatchJob(table_rows(2)[0], "paper", 16), ColumnsJob(("ViT",))):
        with pytest.raises(ValueError, match="measured on a GPU, and there is none here; .*predicts"):
            job.perform(None, Place(tmp_path / "results", tmp_path))
        assert not job.recorded(tmp_path / "results")


def test_a_cap_leaves_nothing_put_by_from_before_it(monkeypatch):
    """Memory that torch has kept from before is used again without asking CUDA, whom the cap is told to."""
    asked = []
    monkeypatch.setattr(limits, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=141 * 2**30))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append("empty"))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", asked.append)
    cap_memory(16)
    cap_memory(None)
    assert asked == ["empty", pytest.approx(15.5 / 141), "empty", 1.0]


def test_an_attempt_leaves_no_model_behind(monkeypatch):
    """Blocks that are computed again refer to themselves, and would keep the memory of a copy until Python looks."""
    copies = []
    monkeypatch.setattr(limits, "copied", lambda model: copies.append(copied(model)) or copies[-1])
    model = vix.build("ViT", checkpointing=True, image_size=8, patch_size=4, dim=8, depth=1)
    attempt = limits.real_steps(model, "float32")
    gc.disable()
    try:
        attempt(2)
        weights = [weakref.ref(weight) for weight in copies.pop().parameters()]
        attempt(2)
        assert not any(weight() is not None for weight in weights)
    finally:
        gc.enable()


@pytest.fixture
def pretend_gpu(monkeypatch):
    """A card of 100 images, simulated on the CPU; the list returned notes what is capped, built and measured."""
    noted = []

    def real_steps(model, precision):
        noted.append((model.name, precision, model.options.get("fused")))
        return Card(100)

    def write(folder, device, only):
        noted.append(only)
        folder.mkdir(exist_ok=True)
        path = folder / "pretended.json"
        rows = json.loads(path.read_text())["rows"] if path.exists() else []
        row = {"config": "uniform", "parameters": 1, "kept_bytes_per_image": 1, "largest_batch": 1,
               "peak_bytes": dict.fromkeys(memory.WAYS, 1)}
        path.write_text(json.dumps({"measured": True, "device": "pretended", "torch": "2", "records": {},
                                    "rows": [*rows, *({"model": model, **row} for model in only)]}))

    monkeypatch.setattr(gpu_jobs, "pick_device", lambda: type("Device", (), {"type": "cuda"})())
    monkeypatch.setattr(gpu_jobs, "pick_precision", lambda device, wanted: wanted)
    monkeypatch.setattr(gpu_jobs, "environment", lambda device: {"device": "pretended"})
    monkeypatch.setattr(gpu_jobs, "cap_memory", noted.append)
    monkeypatch.setattr(gpu_jobs, "real_steps", real_steps)
    monkeypatch.setattr(memory, "write", write)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: self)
    return noted


def test_the_largest_batch_is_found_in_every_way_under_the_cap_and_kept(pretend_gpu, tmp_path):
    row, data = table_rows(2)[0], make_shapes(train=20, test=20)
    job = BatchJob(row, "paper", 16)
    assert job.perform(data, Place(tmp_path, tmp_path, memory_gb=20)).done and job.recorded(tmp_path)
    assert not BatchJob(row, "paper", 12).recorded(tmp_path)
    kept = json.loads(job.path(tmp_path).read_text())
    assert kept["largest_batch"] == dict.fromkeys(memory.WAYS, 100)
    assert (kept["memory_limit_gb"], kept["model"], kept["device"]) == (16, "ViT", "pretended")
    assert pretend_gpu == [16, *(("ViT", *way) for way in memory.WAYS.values()), 20]
    for way in memory.WAYS:
        assert largest_batches(way, results=tmp_path) == {"ViT": "100 on pretended"}
    assert largest_batches(way, "uniform", tmp_path) == largest_batches(way, results=tmp_path / "none") == {}
    job.path(tmp_path).write_text("{}")
    with pytest.raises(ValueError, match="in-16-GB.json holds no largest batches"):
        largest_batches(way, results=tmp_path)


def test_memory_columns_are_measured_once_each_until_time_is_over(pretend_gpu, tmp_path):
    job, place = ColumnsJob(("ViT", "ViP", "ViL")), Place(tmp_path / "results", tmp_path)
    assert not job.perform(None, place, minutes=1e-9).done and job.missing(place.results) == ["ViP", "ViL"]
    assert job.perform(None, place).done and job.recorded(place.results)
    assert pretend_gpu == [None, ["ViT"], None, None, ["ViP"], ["ViL"], None]


def test_a_batch_too_small_for_batch_normalisation_is_none_that_fits():
    """The search for what fits passes sizes that such a model cannot train on, which is no error of the caller's."""
    refusals = [vix.build("ResNet18", seed=0, patch_size=4, image_size=8),
                torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8), torch.nn.BatchNorm1d(8))]
    for model in refusals:
        attempt = limits.real_steps(model, "float32", (8, 8))

        def step(batch, attempt=attempt):
            if batch > 2:
                raise torch.OutOfMemoryError("simulated")
            attempt(batch)

        assert largest_batch(step, start=6) == 2
        with pytest.raises(ValueError, match="value"):
            attempt(1)
    assert vix.max_batch_size(refusals[1], 1.0001, image_size=8) > 1
    wide = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 4096), torch.nn.BatchNorm1d(4096),
                               torch.nn.Linear(4096, 10))
    assert vix.max_batch_size(wide, 1.24) == 0
