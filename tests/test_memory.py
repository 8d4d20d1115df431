"""The stored memory figures: made by the functions that they claim, shown as what they are."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import vixlib as vix
from vixlib.measure import lengths
from vixlib.measure.memory import predict_peak_memory, saved_bytes_per_image
from vixlib.report import memory
from vixlib.report.records import read_records, record_name


@pytest.mark.parametrize(("name", "config"), [("ViT", "paper"), ("LeViN", "uniform")])
def test_the_stored_predictions_are_what_the_code_predicts(name, config):
    row = memory.stored()[0][name, config]
    fused = predict_peak_memory(vix.build(name, config), memory.BATCH, "float16").bytes
    assert row["peak_bytes"]["mixed, fused"] == pytest.approx(fused, rel=0.02)


def test_the_stored_kept_bytes_are_what_is_kept():
    row = memory.stored()[0]["CCN", "uniform"]
    assert row["kept_bytes_per_image"] == pytest.approx(saved_bytes_per_image(vix.build("CCN")), rel=0.02)


def test_every_system_has_its_row_and_softmax_alone_pays_for_its_matrix():
    table = memory.fits_table()
    assert [row[0] for row in table.rows] == vix.names()
    rows, _ = memory.stored()
    stored, fused = (rows["ViT", "uniform"]["peak_bytes"][way] for way in ("mixed, matrix stored", "mixed, fused"))
    matrix = 2 * memory.BATCH * 4 * 1025 ** 2 * 4  # two bytes, four heads, four layers
    assert stored > fused + matrix
    assert len(set(list(rows["ViN", "uniform"]["peak_bytes"].values())[1:])) == 1


def test_the_model_of_a_record_is_of_its_pictures():
    record = {"model": "ViT", "config": "uniform", "position": "learned", "options": {"patch_size": 4}}
    pictures = {"image_size": [16, 8], "channels": 1, "num_classes": 2}
    assert vix.embeddings.built_for(memory.recorded_model(record), "image_size") == (32, 32)
    model = memory.recorded_model({**record, "pictures": pictures})
    assert model(torch.zeros(3, 1, 16, 8)).shape == (3, 2)


def test_writing_one_system_keeps_the_others_and_a_table_says_predicted(tmp_path, monkeypatch):
    device, record = torch.device("cpu"), read_records(model="FNet")[0]
    monkeypatch.setattr(memory, "read_records", lambda: [record])  # a prediction for each would take minutes
    for name in ("FNet", "MLPMixer"):
        path = memory.write(tmp_path, device, only=[name])
    content = json.loads(path.read_text())
    assert {row["model"] for row in content["rows"]} == {"FNet", "MLPMixer"} and content["measured"] is False
    assert content["records"] == {record_name(record): memory.predicted_peak(record)}
    rows, source = memory.stored(tmp_path)
    assert "not measured on a GPU" in source and rows["FNet", "paper"] == rows["FNet", "uniform"]


@pytest.mark.parametrize(("measured_models", "source", "peak"), [
    (vix.names(), "measured on a-gpu", 3), (["ViT"], "predicted", 4)])
def test_measured_figures_go_before_predicted_ones_once_they_are_complete(tmp_path, measured_models, source, peak):
    for name, models in (("predicted", vix.names()), ("a-gpu", measured_models)):
        rows = [{"model": model, "config": "uniform", "parameters": 5, "kept_bytes_per_image": 1, "largest_batch": 2,
                 "peak_bytes": dict.fromkeys(memory.WAYS, 3 if name == "a-gpu" else 4)} for model in models]
        (tmp_path / f"{name}.json").write_text(json.dumps({"measured": name == "a-gpu", "device": name, "torch": "2",
                                                           "batch_size": 64, "rows": rows, "records": {}}))
    rows, said = memory.stored(tmp_path)
    assert said.startswith(source) and rows["ViT", "paper"]["peak_bytes"]["mixed, fused"] == peak


def test_systems_computed_at_once_lose_no_row_and_an_interrupt_keeps_what_was_done(tmp_path, monkeypatch):
    device, needs, calls = torch.device("cpu"), memory.needs, []

    def with_another_meanwhile(name, config, device):
        calls.append(name)
        if name == "ViN":
            raise KeyboardInterrupt
        if len(calls) == 1:
            memory.write(tmp_path, device, only=["MLPMixer"])
        return needs("FNet", config, device) | {"model": name}

    monkeypatch.setattr(memory, "read_records", list)
    monkeypatch.setattr(memory, "needs", with_another_meanwhile)
    with pytest.raises(KeyboardInterrupt):
        memory.write(tmp_path, device, only=["FNet", "ViN"])
    assert {name for name, _ in memory.stored(tmp_path)[0]} == {"FNet", "MLPMixer"}
    assert [path.name for path in tmp_path.iterdir()] == ["predicted.json"]


@pytest.mark.parametrize("damaged", [{"peak_bytes": {}}, {"parameters": None}, {"peak_bytes": {"mixed, fused": "x"}}])
def test_a_row_that_no_table_could_show_is_refused(tmp_path, damaged):
    good = {"measured": False, "device": "CPU", "torch": "2", "records": {}, "rows": [
        {"model": "ViT", "config": "uniform", "parameters": 5, "kept_bytes_per_image": 1, "largest_batch": 2,
         "peak_bytes": dict.fromkeys(memory.WAYS, 3)}]}
    (tmp_path / "predicted.json").write_text(json.dumps(good))
    assert memory.stored(tmp_path)[0]["ViT", "uniform"]["largest_batch"] == 2
    good["rows"][0].update(damaged)
    (tmp_path / "predicted.json").write_text(json.dumps(good))  # read anew, too
    with pytest.raises(ValueError, match=r"predicted\.json holds no memory figures"):
        memory.stored(tmp_path)


def test_a_folder_without_figures_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run python -m vixlib.reproduce.memory"):
        memory.stored(Path(tmp_path))


@pytest.mark.parametrize("module", [memory, lengths])
def test_a_place_that_nothing_can_be_written_to_is_said_before_anything_is_computed(module, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "needs", None)
    monkeypatch.setattr(lengths, "predict", None)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write .*file"):
        module.write(tmp_path / "file" / "figures.json", *[torch.device("cpu")] * (module is memory))


def test_figures_of_something_else_are_named_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "needs", None)
    (tmp_path / "predicted.json").write_text("{}")
    with pytest.raises(ValueError, match="predicted.json holds no memory figures"):
        memory.write(tmp_path, torch.device("cpu"), only=["ViT"])
