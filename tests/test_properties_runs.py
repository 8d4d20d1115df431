"""Whatever is passed for data, training, measuring and reporting: as in test_properties.py."""
from __future__ import annotations

import json
import warnings

import pytest
import torch
from cases import FACTOR, ODD, TRIED, Refused, answer, cases, changed, odd
from hypothesis import strategies as st
from test_properties import FLAG, NAMES, SMALL, TINY, tiny
from torch import nn

import vixlib as vix
from vixlib.data.images import ImageData


def data(count: int = 7, classes: int = 3, size: tuple[int, int] = (8, 8), one_class: bool = False) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    labels = torch.zeros(count, dtype=torch.int64) if one_class else torch.arange(count) % classes
    return ImageData("made", tuple("abcdefghij"[:classes]), images, labels, images, labels)


FIELDS = ("name", "classes", "train_images", "train_labels", "test_images", "test_labels")
IMAGES = odd(*(st.just(torch.zeros(shape, dtype=kind)) for shape, kind in (
    ((7, 3, 8, 8), torch.uint8), ((0, 3, 8, 8), torch.uint8), ((7, 3, 8, 8), torch.float32), ((7, 8, 8), torch.uint8),
    ((7, 1, 8, 8), torch.uint8), ((5, 3, 8, 8), torch.uint8), ((7, 3, 0, 8), torch.uint8))))
LABELS = odd(*(st.just(torch.tensor(values)) for values in ([0] * 7, [0] * 6 + [3], [-1] * 7, [0.0] * 7, [0],
                                                         [[0] * 7])),
             st.just(torch.zeros(0, dtype=torch.int64)))


@cases(200, fields=changed({}, 2, name=odd("x"), classes=odd(("a", "b", "c"), ("a",)), train_images=IMAGES,
                           test_images=IMAGES, train_labels=LABELS, test_labels=LABELS))
def test_image_data_is_whole_or_refused(fields):
    good = data()
    given = {**{name: getattr(good, name) for name in FIELDS}, **fields}
    try:
        made = ImageData(**given)
    except (ValueError, TypeError) as error:
        assert any(name in str(error) for name in FIELDS), error
        return
    images, labels = made.batch(torch.arange(len(made.train_labels)))
    assert images.dtype == torch.float32 and images.abs().max() <= 1 and 0 <= labels.min() <= labels.max() < 3


INDEX = odd(*(st.just(torch.tensor(values)) for values in ([0, 6, 3], [7], [-1], [0.5], [[0]], [True])),
            st.just(torch.zeros(0, dtype=torch.int64)))


@cases(200, given=changed({"index": torch.arange(3)}, 2, index=INDEX, split=odd("train", "test"),
                          augment=odd(("flip",), ["crop", "flip"], ("mirror",), "flip"),
                          generator=odd(st.just(torch.Generator()))), fraction=odd(0.5, 1.0, 1e-9), seed=odd(3))
def test_batches_and_subsets(given, fraction, seed):
    made = data()
    batch = answer(lambda: made.batch(**given), {**given, "index": "index", "augment": "augment"})
    if not isinstance(batch, Refused):
        wanted = made.train_labels if given.get("split", "train") == "train" else made.test_labels
        assert torch.equal(batch[1], wanted[given["index"]]) and batch[0].shape == (len(given["index"]), 3, 8, 8)
    part = answer(lambda: made.subset(fraction, seed), {"fraction": fraction, "seed": seed})
    if not isinstance(part, Refused):
        assert set(part.train_labels.tolist()) == {0, 1, 2} and torch.equal(part.test_images, made.test_images)


@cases(100, given=changed({"train": 3, "test": 2, "size": 24, "seed": 0}, 2, train=odd(), test=odd(), size=odd(23),
                          seed=odd()), device=odd("cpu", "cpu", "tpu", "mps"))
def test_shapes_and_load(given, device):
    refused = answer(lambda: vix.load("shapes", device=device, **given), {**given, "device": device})
    if not isinstance(refused, Refused):
        assert refused.image_size == (24, 24)
    for wrong in ({"name": device}, {"name": "cifar100", "root": given["size"]}):
        try:
            result = answer(lambda wrong=wrong: vix.load(**wrong, download=False), wrong)
            assert isinstance(result, (Refused, ImageData))
        except RuntimeError as error:  # no copy is here
            assert "no copy of cifar100" in str(error)


# ---- training ---------------------------------------------------------------------------------------------------

NUMBER = odd(1e-3, 0.5, 1.0, 2)
CONFIG = {**dict.fromkeys(("epochs", "batch_size", "eval_batch_size", "sgd_from"), odd(SMALL)),
          **dict.fromkeys(("lr", "eps", "weight_decay", "sgd_lr", "warmup_epochs", "label_smoothing", "ema_decay"),
                          NUMBER),
          "betas": odd((0.9, 0.99), [0.5, 0.5], (0.9,), (0.9, 1.0), ("a", "b")), "seed": odd(3),
          "schedule": odd("cosine"),
          "precision": odd("auto", "float32", "float16"), "augment": odd(("flip",), ["crop"], ("mirror",), "flip"),
          "deterministic": FLAG}


@cases(300, given=changed({}, 3, **CONFIG))
def test_settings_are_kept_or_named(given):
    made = answer(lambda: vix.TrainConfig(**given), {**given, "augment": "augment"})
    if not isinstance(made, Refused):
        assert vix.TrainConfig(**json.loads(json.dumps(made.to_dict()))) == made


@cases(60, pictures=st.integers(1, 9), batch_size=st.integers(1, 10), one_class=st.booleans(),
       name=st.sampled_from(NAMES), size=st.sampled_from([(8, 8), (4, 8), (8, 4)]),
       given=changed({}, 1, minutes=odd(10), device=odd("cpu", "tpu"), on_epoch=odd(print), checkpoint=odd(),
                     progress=FLAG, config=odd(), data=odd(), model=odd(nn.Identity())))
def test_fit_trains_every_last_batch_or_names_what_is_wrong(pictures, batch_size, one_class, name, size, given):
    if isinstance(given.get("checkpoint"), str) and given["checkpoint"]:
        given = {}  # a path is a path
    made = data(pictures, size=size, one_class=one_class)
    model = vix.build(name, seed=0, **{**vix.applicable(name, TINY), "image_size": size})
    config = vix.TrainConfig(epochs=1, batch_size=batch_size, lr=1e-4)
    usual = {"model": model, "data": made, "config": config, "device": "cpu", "progress": False}
    run = answer(lambda: vix.fit(**{**usual, **given}), {**given, "model=Identity": "no parameters",
                                                           "batch normalisation": "(1,"})
    if not isinstance(run, Refused):
        assert len(run.history) == 1 and 0 <= run.last_top1 <= 100
        assert all(p.isfinite().all() for p in model.parameters())


@cases(80, name=st.sampled_from(NAMES),
       given=changed({}, 2, split=odd("train"), batch_size=odd(SMALL), device=odd("cpu"),
                     precision=odd("float32", "auto"), data=odd(), model=odd()),
       images=odd(*(st.just(torch.zeros(shape, dtype=kind)) for shape, kind in (
           ((2, 3, 8, 8), torch.uint8), ((1, 3, 8, 8), torch.uint8), ((0, 3, 8, 8), torch.uint8),
           ((2, 1, 8, 8), torch.uint8), ((3, 8, 8), torch.uint8), ((2, 3, 8, 8), torch.float32)))))
def test_evaluate_and_predict(name, given, images):
    model, made = tiny(name), data()
    scores = answer(lambda: vix.evaluate(**{"model": model, "data": made, **given}), given)
    if not isinstance(scores, Refused):
        assert scores.loss == pytest.approx(vix.evaluate(model, made, given.get("split", "test"), 1).loss, rel=1e-4)
    told = {"images": str(list(images.shape)) if isinstance(images, torch.Tensor) else images,
            "images has shape": tuple(getattr(images, "shape", ()))}
    chances = answer(lambda: vix.predict(model, images), told)
    if not isinstance(chances, Refused):
        assert torch.allclose(chances.sum(1), torch.ones(len(images))) and images.dtype == torch.uint8


# ---- measuring and reporting ------------------------------------------------------------------------------------

MEASURES = {"saved_bytes_per_image": ("image_size", "precision"),
            "throughput": ("batch_size", "repeats", "image_size", "precision"),
            "peak_memory": ("batch_size", "image_size", "precision"), "max_batch_size": ("memory_gb", "image_size"),
            "count_parameters": ("model",)}
VALUES = {"image_size": odd((8, 8), 8, (4, 8)), "precision": odd("float32", "bfloat16", "float16"),
          "batch_size": odd(2), "repeats": odd(1), "memory_gb": odd(0.5, 1), "model": odd(nn.Identity())}


@cases(150, measure=st.sampled_from([*MEASURES, "throughput"]), chosen=st.data())
def test_measures_measure_or_name_what_is_wrong(measure, chosen):
    given = {name: chosen.draw(VALUES[name], name) for name in MEASURES[measure]}
    usual = {"model": tiny("ViT"), **({"repeats": 1} if measure == "throughput" else {})}
    if measure in ("peak_memory", "max_batch_size"):  # seconds each where all is well: only what is not, here
        given["batch_size" if measure == "peak_memory" else "memory_gb"] = chosen.draw(
            st.sampled_from([odd_one for odd_one in ODD if odd_one not in (1.5, 10**9)]), "again")
    told = {**given, "the image gives": "build the model with this image_size"}
    result = answer(lambda: getattr(vix, measure)(**{**usual, **given}), told)
    if not isinstance(result, Refused):
        assert getattr(result, "true", result) >= 0


REPORTS = {"paper_table": ("table",), "authors_runs": ("model",), "compare": ("table", "runs"),
           "applicable": ("name", "options", "config"), "pick_device": ("prefer",),
           "pick_precision": ("device", "precision"), "describe": ("device",), "current_profile": ("profile", "device"),
           "announce": ("profile", "device", "notebook"), "read_records": ("folder",)}


@cases(250, report=st.sampled_from(sorted(REPORTS)), chosen=st.data())
def test_reports_answer_or_name_what_is_wrong(report, chosen, tmp_path_factory):
    usual = {"table": 5, "model": "ViX", "runs": 0, "name": "ViT", "config": "paper", "prefer": "cpu", "device": "cpu",
             "precision": "float16", "profile": "smoke", "folder": tmp_path_factory.getbasetemp(), "options": {},
             "notebook": "01_vit"}
    given = {name: chosen.draw(odd(usual[name]), name) for name in REPORTS[report]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no GPU: said by pick_device
        answer(lambda: getattr(vix, report)(*given.values()), given)


def test_at_least_two_thousand_cases_were_tried():
    if not all(TRIED.values()):
        pytest.skip("only some of the properties were run")
    print(f"{sum(TRIED.values()):,} cases: {TRIED}")
    assert sum(TRIED.values()) >= 2000 * min(1, FACTOR)
