"""Training: exact evaluation, seeded order, interrupts and limits that lose nothing, resuming bit for bit."""

from __future__ import annotations

import copy
import inspect
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from vixlib import ViX, build
from vixlib.data.images import ImageData
from vixlib.data.shapes import make_shapes
from vixlib.measure.memory import predict_peak_memory, saved_bytes_per_image
from vixlib.measure.scoring import evaluate, in_parts, predict
from vixlib.measure.speed import throughput
from vixlib.mixers import NystromAttention
from vixlib.precision import computing_in
from vixlib.train import in_use
from vixlib.train import loop as trainer
from vixlib.train.averaging import WeightAverage
from vixlib.train.checkpoint import peek
from vixlib.train.loop import fit
from vixlib.train.run import Run, TrainConfig
from vixlib.train.training import Training

CLASSES = ("red", "green", "blue")


class RecordingData(ImageData):
    """Notes the order of training pictures, and calls `before` ahead of every training batch."""

    def batch(self, index, split="train", augment=(), generator=None):
        if split == "train":
            self.__dict__.setdefault("seen", []).extend(index.tolist())
            self.__dict__.get("before", lambda: None)()
        return super().batch(index, split, augment, generator)

    def to(self, device):
        return self  # the tests need this very object back


class Net(nn.Module):
    """Dropout draws from the global generator and BatchNorm keeps state: both must survive a resume."""

    def __init__(self, width=8, num_classes=3, dropout=0.2):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(),
                                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout),
                                    nn.Linear(width, num_classes))

    def forward(self, images):
        return self.layers(images)


def colours(train=60, test=31, kind=ImageData):
    """Noise in which one channel is brighter; the channel is the class."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for count in (train, test):
        labels = torch.randint(3, (count,), generator=generator)
        images = torch.randint(0, 128, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
        images[torch.arange(count), labels] += 100
        parts += [images, labels]
    return kind("colours", CLASSES, *parts)


def net(seed=0, **options):
    torch.manual_seed(seed)
    return Net(**options)


def train(**changes):
    """A short run; returns (model, run)."""
    options = {name: changes.pop(name) for name in ("checkpoint", "on_epoch", "minutes") if name in changes}
    model = changes.pop("model", None) or net()
    data = changes.pop("data", None) or colours()
    config = TrainConfig(**{"epochs": 3, "batch_size": 16, "augment": ("flip", "crop"), **changes})
    return model, fit(model, data, config, device="cpu", progress=False, **options)


def same_weights(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- TrainConfig ----------------------------------------------------------------------------------------

def test_the_defaults_are_the_papers_protocol():
    tables = Path(__file__).parent.parent / "data" / "paper_tables.json"
    protocol, config = json.loads(tables.read_text())["protocol"], TrainConfig().to_dict()
    for name in ("lr", "betas", "eps", "weight_decay", "batch_size"):
        assert config[name] == protocol[name]
    assert config["epochs"] == 40 and config["augment"] == []
    for host, names in ((ViX, ("patch_size", "dim", "depth", "heads", "mlp_dim", "dropout")),
                        (NystromAttention, ("num_landmarks",))):
        for name in names:
            told = protocol["nystrom_landmarks" if name == "num_landmarks" else name]
            assert inspect.signature(host).parameters[name].default == told, name


@pytest.mark.parametrize(("changes", "message"), [
    ({"epochs": 0}, "epochs=0"), ({"batch_size": -1}, "batch_size=-1"), ({"lr": 0.0}, "lr=0.0"),
    ({"lr": float("nan")}, "lr=nan"), ({"lr": float("inf")}, "lr=inf"), ({"eps": 0}, "eps=0"),
    ({"betas": (0.9,)}, "betas="), ({"betas": (0.9, 1.0)}, "betas="),
    ({"weight_decay": -1}, "weight_decay=-1"), ({"seed": -1}, "seed=-1"), ({"seed": 1.5}, "seed=1.5"),
    ({"precision": "fp16"}, "precision='fp16'"),
    ({"sgd_from": 0}, "sgd_from=0"), ({"sgd_lr": -1.0}, "sgd_lr=-1.0"),
    ({"augment": ("mirror",)}, "augment='mirror'"), ({"eval_batch_size": 0}, "eval_batch_size=0"),
])
def test_a_bad_setting_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"epochs": 1.5}, "epochs=1.5"), ({"batch_size": "64"}, "batch_size='64'"),
    ({"augment": "flip"}, "augment="),
])
def test_a_setting_of_the_wrong_type_is_named(changes, message):
    with pytest.raises(TypeError, match=message):
        TrainConfig(**changes)


def test_a_config_survives_json():
    config = TrainConfig(lr=3e-4, augment=("flip", "crop"), eval_batch_size=7)
    assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config


# --- evaluate and predict -------------------------------------------------------------------------------

@pytest.mark.parametrize("batch_size", [1, 4, 30, 31, 1000])
@pytest.mark.parametrize("split", ["train", "test"])
def test_scores_are_exact_means_over_images(batch_size, split):
    model, data = net().eval(), colours(train=7)
    images, labels = data.batch(torch.arange(7 if split == "train" else 31), split)
    with torch.no_grad():
        logits = model(images)
    scores = evaluate(model, data, split, batch_size)
    assert scores.images == len(labels)
    assert scores.top1 == 100 * (logits.argmax(1) == labels).sum().item() / len(labels)
    assert scores.top5 == 100.0  # three classes: all of them are among the best five
    assert scores.loss == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-6)


def test_top5_counts_the_best_five():
    class Ranking(nn.Module):
        def forward(self, images):
            return -torch.arange(10.0).expand(len(images), 10)  # class 0 first, class 9 last

    labels = torch.arange(10).repeat(3)[:23]
    images = torch.zeros(23, 3, 4, 4, dtype=torch.uint8)
    data = ImageData("ranks", tuple("abcdefghij"), images, labels, images, labels)
    scores = evaluate(Ranking(), data, batch_size=10)
    assert (scores.top1, scores.top5) == (pytest.approx(100 * 3 / 23), pytest.approx(100 * 13 / 23))


def test_a_picture_without_an_answer_is_missed():
    class Broken(nn.Module):
        """NaN for the first picture of a batch, which has class 0; full marks for the others."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images):
            scores = self.weight * torch.eye(4)[:len(images)]
            return torch.cat([scores[:1] * torch.nan, scores[1:]])

    images, labels = torch.zeros(4, 3, 4, 4, dtype=torch.uint8), torch.arange(4)
    scores = evaluate(Broken(), ImageData("broken", tuple("abcd"), images, labels, images, labels))
    assert (scores.top1, scores.top5) == (75, 75)


def test_evaluation_switches_dropout_off_and_every_module_back():
    model, data = net(dropout=0.9), colours()
    model.layers[1].eval()  # a frozen BatchNorm stays frozen
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert evaluate(model, data) == evaluate(model, data)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    def fail(*_):
        raise RuntimeError("broken layer")

    model.layers[6].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken layer"):
        evaluate(model, data)
    assert [module.training for module in model.modules()] == modes


def test_predictions_are_the_probabilities_that_evaluation_scores():
    model, data = net(dropout=0.9), colours(test=300)
    probabilities = predict(model, data.test_images)
    assert probabilities.shape == (300, 3) and model.training
    assert torch.allclose(probabilities.sum(1), torch.ones(300))
    top1 = 100 * (probabilities.argmax(1) == data.test_labels).float().mean().item()
    assert top1 == pytest.approx(evaluate(model, data).top1)
    chosen = probabilities[torch.arange(300), data.test_labels]
    assert -chosen.double().log().mean().item() == pytest.approx(evaluate(model, data).loss, rel=1e-5)


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8),
                                    torch.zeros(0, 3, 8, 8, dtype=torch.uint8)])
def test_images_of_another_kind_are_refused(images):
    with pytest.raises(ValueError, match="not uint8"):
        predict(net(), images)


def test_images_without_numbers_of_their_own_are_refused():
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(TypeError, match="images is torch.sparse_coo; pass an ordinary tensor"):
        predict(net(), images.to_sparse())
    with pytest.raises(ValueError, match="images are on the meta device"):
        predict(net(), images.to("meta"))


# --- fit ------------------------------------------------------------------------------------------------

def test_a_separable_problem_is_learned_and_the_run_tells_it():
    seen = []
    model, run = train(epochs=8, lr=0.01, augment=(), on_epoch=lambda run: seen.append(len(run.history)))
    assert run.last_top1 == evaluate(model, colours()).top1 >= 95
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert seen == [epoch["epoch"] for epoch in run.history] == list(range(1, 9))
    assert run.finished and not run.interrupted and not model.training
    assert run.best_top1 >= run.last_top1 and run.best_top5 == run.last_top5 == 100
    assert run.images_per_second > 0 and run.peak_memory_bytes is None and run.precision == "float32"
    assert "Net on colours" in repr(run) and "8/8" in repr(run) and "\n" not in repr(run)


def test_the_recorded_loss_is_the_mean_over_images_of_uneven_batches():
    class Constant(nn.Module):
        """Logits that no training changes: the loss of an image depends on its label alone."""

        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(3))

        def forward(self, images):
            return torch.tensor([0.0, 1.0, 3.0]).expand(len(images), 3) + 0 * self.unused

    data = colours(train=50)
    _, run = train(model=Constant(), data=data, epochs=1, augment=(), batch_size=16)  # 16, 16, 16 and 2
    logits = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64).expand(50, 3)
    expected = F.cross_entropy(logits, data.train_labels).item()
    assert run.history[0]["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 60, 1000])
def test_every_image_is_used_once_an_epoch_at_any_batch_size(batch_size):
    data = colours(train=15, kind=RecordingData)
    _, run = train(data=data, batch_size=batch_size, epochs=2)
    assert len(run.history) == 2
    assert sorted(data.seen[:15]) == sorted(data.seen[15:]) == list(range(15))
    assert data.seen[:15] != data.seen[15:]


def test_the_seed_decides_order_and_weights():
    results = []
    for seed in (5, 5, 6):
        data = colours(kind=RecordingData)
        model, run = train(data=data, seed=seed)
        results.append((data.seen, model, [epoch["loss"] for epoch in run.history]))
    (order, model, losses), again, other = results
    assert order == again[0] and losses == again[2] and same_weights(model, again[1])
    assert order != other[0] and losses != other[2]


def test_the_evaluation_batch_size_changes_no_training():
    assert same_weights(train(eval_batch_size=1)[0], train(eval_batch_size=None)[0])


def test_a_loss_that_is_not_finite_stops_with_step_and_advice():
    data, model = colours(kind=RecordingData), net()
    counts = []

    def poison():
        counts.append(1)
        if len(counts) == 7:  # epochs have four steps
            with torch.no_grad():
                model.layers[6].bias.fill_(float("nan"))

    data.__dict__["before"] = poison
    message = r"nan at epoch 2, step 3 of 4.*lower lr than 0\.001"
    with pytest.raises(FloatingPointError, match=message) as caught:
        train(model=model, data=data)
    assert [epoch["epoch"] for epoch in caught.value.run.history] == [1]


def test_weights_ruined_by_the_last_step_of_all_are_noticed():
    model = net()
    bias = model.layers[6].bias

    def ruin(_):
        bias.data.fill_(float("inf"))

    bias.register_hook(ruin)  # runs in backward, when the loss of the only step is already known to be finite
    ruined = r"parameter layers\.6\.bias became infinite or NaN, while the loss was still .*epoch 1, step 1 of 1"
    with pytest.raises(FloatingPointError, match=ruined):
        train(model=model, epochs=1, batch_size=60)


@pytest.mark.parametrize(("one", "other", "difference"), [
    ({"position": "rope"}, {"position": "none"}, "position is rope in the checkpoint, none here"),
    ({"heads": 2, "dim_head": 4}, {"heads": 4, "dim_head": 2}, "heads is 2 in the checkpoint, 4 here"),
    ({"mixer": "performer", "kernel": "favor"}, {"mixer": "performer", "kernel": "relu"}, "kernel is favor"),
    ({"dropout": 0.5}, {}, "dropout is 0.5 in the checkpoint, nothing here"),
])
def test_a_model_of_the_same_tensors_that_computes_something_else_is_another_run(tmp_path, one, other, difference):
    tiny = {"image_size": 8, "patch_size": 4, "dim": 8, "depth": 1, "heads": 2, "dim_head": 4, "mlp_dim": 8,
            "num_classes": 3}
    path = tmp_path / "run.pt"
    train(model=build("ViT", **{**tiny, **one}), checkpoint=path, epochs=1)
    with pytest.raises(ValueError, match=rf"of another run: the model's settings differ: {difference}"):
        train(model=build("ViT", **{**tiny, **other}), checkpoint=path, epochs=2)
    _, run = train(model=build("ViT", checkpointing=True, **{**tiny, **one}), checkpoint=path, epochs=2)
    assert run.finished  # the same numbers with less memory: what an out-of-memory error advises


def test_other_pictures_of_the_same_name_and_number_are_other_data(tmp_path):
    data = colours()
    train(data=data, checkpoint=tmp_path / "run.pt", epochs=1)
    mixed = replace(data, train_labels=data.train_labels.roll(1))
    with pytest.raises(ValueError, match="the data sets differ: digest is .* in the checkpoint"):
        train(data=mixed, checkpoint=tmp_path / "run.pt", epochs=2)


def test_sgds_momentum_starts_as_zeros_so_that_a_skipped_step_leaves_no_chance(monkeypatch):
    config = TrainConfig(epochs=2, sgd_from=2)
    run = Run("Net", None, {}, "colours", 60, config, "CPU", "float32")
    training = Training(net(), net(), torch.amp.GradScaler("cuda", enabled=False), torch.Generator(),
                        torch.Generator(), torch.device("cpu"), run, average=None)
    training.enter_phase(2)
    buffers = [training.optimizer.state[p]["momentum_buffer"] for p in training.model.parameters()]
    assert type(training.optimizer) is torch.optim.SGD and all((buffer == 0).all() for buffer in buffers)


def test_an_interrupt_before_anything_is_saved_names_no_file(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.checkpoints, "save", interrupted)
    _, run = train(checkpoint=tmp_path / "run.pt")
    said = capsys.readouterr().out
    assert run.interrupted and "1 of 3 epochs are done." in said and "run.pt" not in said


@pytest.mark.parametrize("moment", ["on_epoch", "batch"])
def test_an_interrupt_keeps_the_history(moment, tmp_path, capsys):
    counts = []

    def interrupt(*_):
        counts.append(1)
        if len(counts) == (2 if moment == "on_epoch" else 10):  # in the second, or the third, epoch
            raise KeyboardInterrupt

    data = colours(kind=RecordingData)
    data.__dict__["before"] = interrupt if moment == "batch" else lambda: None
    path = tmp_path / "run.pt"
    model, run = train(data=data, checkpoint=path, on_epoch=interrupt if moment == "on_epoch" else None)
    assert run.interrupted and not run.finished and len(run.history) == 2
    assert "2 of 3 epochs" in capsys.readouterr().out and "interrupted" in repr(run)
    resumed, run = train(checkpoint=path)
    assert run.finished and not run.interrupted and same_weights(resumed, train()[0])


def test_the_time_limit_stops_between_epochs_and_calls_add_up(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def a_minute_passes(run):
        clock[0] += 60

    limits = {"checkpoint": tmp_path / "run.pt", "on_epoch": a_minute_passes, "epochs": 6}
    _, run = train(**limits, minutes=2.5)
    assert (len(run.history), run.finished, run.interrupted) == (2, False, False)
    _, run = train(**limits, minutes=0.5)  # one epoch at least, or no series of calls would ever end
    assert (len(run.history), run.finished) == (3, False)
    model, run = train(**limits, minutes=3)
    assert (len(run.history), run.finished) == (6, True)
    assert same_weights(model, train(epochs=6)[0])
    with pytest.raises(ValueError, match="minutes=0"):
        train(minutes=0)


def test_a_first_epoch_that_compiles_does_not_cost_the_last_ones_their_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def time_passes(run):
        clock[0] += 240 if len(run.history) == 1 else 60

    assert len(train(on_epoch=time_passes, epochs=9, minutes=7.9)[1].history) == 1
    clock[0] = 0.0
    assert len(train(on_epoch=time_passes, epochs=9, minutes=8.9)[1].history) == 5


def test_models_and_data_that_do_not_fit_are_named():
    model, data = net(), colours()
    for name, value in (("image_size", 32), ("image_size", (8, 9)), ("channels", 1), ("num_classes", 10)):
        setattr(model, name, value)
        with pytest.raises(ValueError, match=rf"{name}=.*'colours' has {name}="):
            fit(model, data, TrainConfig(epochs=1), device="cpu")
        with pytest.raises(ValueError, match=name):
            evaluate(model, data)
        delattr(model, name)
    model.image_size, model.channels, model.num_classes = 8, 3, 3
    assert evaluate(model, data).images == 31
    with pytest.raises(ValueError, match=r"into \[16, 4\].*num_classes=3"):
        train(model=net(num_classes=4))
    with pytest.raises(TypeError, match=r"data=\[1\] must be an ImageData.*got list"):
        evaluate(model, [1])


def test_settings_that_the_device_lacks_are_refused_before_training():
    with pytest.raises(ValueError, match="bfloat16.*needs a GPU"):
        train(precision="bfloat16")


# --- checkpoints ----------------------------------------------------------------------------------------

KILLED = """
import sys, time
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
from test_train import RecordingData, colours, train
data, count = colours(kind=RecordingData), 0
def block():
    global count
    count += 1
    if {block_at} and count == {block_at}:
        print("blocked", flush=True)
        time.sleep(600)
data.__dict__["before"] = block
model, run = train(data=data, checkpoint={checkpoint!r})
torch.save(model.state_dict(), {weights!r})
print(len(run.history), data.seen)
"""


def script(tmp_path, block_at):
    here = Path(__file__).resolve().parent
    return [sys.executable, "-c", KILLED.format(
        paths=[str(here), str(here.parent)], checkpoint=str(tmp_path / "run.pt"),
        weights=str(tmp_path / "weights.pt"), block_at=block_at)]


def test_a_killed_process_is_resumed_bit_for_bit(tmp_path):
    # Killed in the middle of the second epoch, with the checkpoint of the first on disk.
    with subprocess.Popen(script(tmp_path, block_at=6), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "blocked\n"
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert set(os.listdir(tmp_path)) <= {"run.pt", ".run.pt.lock"}  # the sign of a process that is gone, held by nobody

    resumed = subprocess.run(script(tmp_path, block_at=0), capture_output=True, text=True, check=True)
    data = colours(kind=RecordingData)
    model, run = train(data=data)
    assert resumed.stdout.split(maxsplit=1) == ["3", f"{data.seen[60:]}\n"]
    saved = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert list(saved) == list(model.state_dict())
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    kept = torch.load(tmp_path / "run.pt", weights_only=True)["run"]["history"]
    assert [{**epoch, "seconds": 0} for epoch in kept] == [{**epoch, "seconds": 0} for epoch in run.history]
    assert sorted(os.listdir(tmp_path)) == ["run.pt", "weights.pt"]


def test_a_finished_checkpoint_gives_run_and_weights_without_training(tmp_path):
    model, run = train(checkpoint=tmp_path / "run.pt")
    data = colours(kind=RecordingData)
    again, found = train(model=net(seed=9), data=data, checkpoint=tmp_path / "run.pt")
    assert found == run and same_weights(again, model) and not again.training
    assert "seen" not in data.__dict__


def test_more_epochs_continue_and_fewer_are_refused(tmp_path):
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=2)
    model, run = train(checkpoint=path, epochs=4)
    assert run.finished and run.config.epochs == 4 and same_weights(model, train(epochs=4)[0])
    with pytest.raises(ValueError, match="epochs=3 is less than the 4 epochs"):
        train(checkpoint=path, epochs=3)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_the_second_phase_resumes_bit_for_bit_on_both_sides_of_the_switch(tmp_path, stop):
    path, phases = tmp_path / "run.pt", {"sgd_from": 3, "sgd_lr": 0.05}
    train(checkpoint=path, epochs=stop, **phases)
    model, run = train(checkpoint=path, epochs=4, **phases)
    straight, whole = train(epochs=4, **phases)
    assert same_weights(model, straight) and run.last_top1 == whole.last_top1
    assert not same_weights(model, train(epochs=4)[0])


def test_the_second_phase_is_sgd_with_momentum():
    data = colours(train=30)
    model, reference = net(dropout=0.0), net(dropout=0.0)
    fit(model, data, TrainConfig(epochs=3, batch_size=30, sgd_from=1, sgd_lr=0.1), device="cpu", progress=False)
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    for _ in range(3):  # whole batches, so that the order does not matter beyond rounding
        images, labels = data.batch(torch.arange(30), "train")
        loss = nn.functional.cross_entropy(reference(images), labels)
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        with torch.no_grad():
            for p, v, gradient in zip(reference.parameters(), velocity, gradients, strict=True):
                p -= 0.1 * v.mul_(0.9).add_(gradient)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


MODERN = {"warmup_epochs": 1, "schedule": "cosine", "label_smoothing": 0.1, "ema_decay": 0.9, "weight_decay": 0.05}


@pytest.mark.parametrize("phases", [{}, {"sgd_from": 4, "sgd_lr": 0.05}])
def test_schedule_smoothing_and_average_resume_bit_for_bit(tmp_path, phases):
    path, settings = tmp_path / "run.pt", {"epochs": 5, **MODERN, **phases}
    for epochs in range(1, 5):  # the shortest allowance: one epoch a call
        _, run = train(checkpoint=path, minutes=1e-9, **settings)
        assert len(run.history) == epochs and not run.finished
    model, run = train(checkpoint=path, **settings)
    straight, whole = train(**settings)
    assert run.finished and same_weights(model, straight)
    assert [{**epoch, "seconds": 0} for epoch in run.history] == [{**epoch, "seconds": 0} for epoch in whole.history]
    again, _ = train(model=net(seed=9), checkpoint=path, **settings)
    assert same_weights(again, straight)
    for name in MODERN:  # each of them takes part
        assert not same_weights(straight, train(**{**settings, name: getattr(TrainConfig(), name)})[0]), name


def test_the_average_is_what_is_scored_and_what_the_model_is_left_with():
    seen = []
    model, run = train(epochs=3, lr=0.01, ema_decay=0.9, on_epoch=lambda run: seen.append(run.last_top1))
    scores = evaluate(model, colours())
    assert (scores.top1, seen[-1]) == (run.last_top1, run.last_top1)
    raw, _ = train(epochs=3, lr=0.01)
    assert not same_weights(model, raw)  # averaging changes what is left, not the training itself:
    assert [epoch["loss"] for epoch in run.history] == [epoch["loss"] for epoch in train(epochs=3, lr=0.01)[1].history]


def test_label_smoothing_is_in_the_training_loss_alone():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(3))

        def forward(self, images):
            return torch.tensor([0.0, 1.0, 3.0]).expand(len(images), 3) + 0 * self.unused

    data = colours(train=50)
    _, run = train(model=Constant(), data=data, epochs=1, augment=(), label_smoothing=0.3)
    logs = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64).log_softmax(0)
    expected = -(0.7 * logs[data.train_labels] + 0.3 * logs.mean()).mean().item()
    assert run.history[0]["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_rate_that_ends_with_the_epochs_refuses_another_number_of_them(tmp_path):
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=2, schedule="cosine")
    with pytest.raises(ValueError, match="epochs is 2 in the checkpoint, 3 here"):
        train(checkpoint=path, epochs=3, schedule="cosine")


def test_a_checkpoint_from_before_these_settings_goes_on(tmp_path):
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=2)
    state = torch.load(path, weights_only=True)
    for name in ("warmup_epochs", "schedule", "label_smoothing", "ema_decay"):
        del state["run"]["config"][name]
    del state["average"]
    torch.save(state, path)
    assert same_weights(train(checkpoint=path)[0], train()[0])


@pytest.mark.parametrize(("changes", "message"), [
    ({"model": Net(width=9)}, r"layers\.0\.weight is \[8, 3, 3, 3\] in the checkpoint, \[9, 3, 3, 3\] here"),
    ({"model": nn.Sequential(nn.Flatten(), nn.Linear(192, 3))}, "name is Net in the checkpoint, Sequential here"),
    ({"lr": 0.5}, r"lr is 0\.001 in the checkpoint, 0\.5 here"),
    ({"seed": 1}, "seed is 0 in the checkpoint, 1 here"),
    ({"augment": ()}, r"augment is \['crop', 'flip'\] in the checkpoint, \[\] here"),
    ({"data": replace(colours(), name="paint")}, "name is colours in the checkpoint, paint here"),
    ({"data": colours(train=30)}, "train_images is 60 in the checkpoint, 30 here"),
])
def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path, changes, message):
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=1)
    saved = path.read_bytes()
    model = changes.get("model") or net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"run\.pt is of another run: .*{message}"):
        train(**{"checkpoint": path, "model": model, **changes})
    assert path.read_bytes() == saved
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_damaged_or_foreign_file_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=1)
    whole = path.read_bytes()
    torch.save(net().state_dict(), tmp_path / "weights.pt")
    foreign = [b"", whole[:100], whole[:-100], b"hello", (tmp_path / "weights.pt").read_bytes()]
    for content in foreign:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.pt is truncated or not one of vixlib's.*delete it"):
            train(checkpoint=path)
        assert path.read_bytes() == content


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "broken-in"),)

    as_torch = tmp_path / "torch.pt"
    torch.save({"format": 1, "run": Malicious()}, as_torch)
    as_pickle = tmp_path / "pickle.pt"
    as_pickle.write_bytes(pickle.dumps(Malicious(), protocol=2))
    for path in (as_torch, as_pickle):
        with pytest.raises(ValueError, match="delete it"):
            train(checkpoint=path)
    assert not (tmp_path / "broken-in").exists()


def test_a_failed_save_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=1)
    saved = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=r"run\.pt: No space left"):
        train(checkpoint=path, epochs=2)
    assert path.read_bytes() == saved and os.listdir(tmp_path) == ["run.pt"]


def test_an_epoch_that_could_not_be_saved_comes_with_the_error(tmp_path, monkeypatch):
    _, whole = train()
    real, saved = trainer.checkpoints.save, []

    def full(*arguments):
        saved.append(1)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(trainer.checkpoints, "save", full)
    with pytest.raises(OSError, match="No space left") as error:
        train(checkpoint=tmp_path / "run.pt")
    assert [epoch["loss"] for epoch in error.value.run.history] == [epoch["loss"] for epoch in whole.history[:2]]


def test_going_on_elsewhere_says_so(tmp_path):
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=1)
    state = torch.load(path, weights_only=True)
    state["run"].update(device="Tesla T4", precision="float16")
    state["cuda_rng"] = torch.zeros(16, dtype=torch.uint8)
    torch.save(state, path)
    with pytest.warns(UserWarning, match="made on Tesla T4 in float16 and goes on here on CPU"):
        _, run = train(checkpoint=path, epochs=2)
    assert run.finished and run.precision == "float32" and run.device.startswith("CPU")


def test_a_run_may_go_on_compiled_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    train(checkpoint=path, epochs=1)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    with pytest.warns(UserWarning, match="in float32 and goes on here on CPU.* in float32, compile='graphs': not bit"):
        _, run = train(checkpoint=path, epochs=2, compile="graphs")
    assert run.finished and run.config.compile == "graphs" and len(run.history) == 2


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_refused_before_a_step(kind):
    model = net().to(kind)
    with pytest.raises(TypeError, match=rf"trains .* in {kind}, where small updates are lost; call model.float"):
        train(model=model)
    with pytest.raises(TypeError, match="small updates are lost"):
        predict_peak_memory(model, 2, image_size=(8, 8))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("change", [nn.utils.weight_norm, lambda part: prune.l1_unstructured(part, "weight", 0.3)])
def test_what_hooks_make_of_weights_is_measured_and_averaged(change):
    def own():
        torch.manual_seed(0)
        model = net()
        change(model.layers[0])
        return model
    kept, peak = saved_bytes_per_image(own(), (8, 8)), predict_peak_memory(own(), 2, image_size=(8, 8)).bytes
    assert kept > 0 and peak > 0 and throughput(own(), 2, 1, image_size=(8, 8)) > 0
    averaged, _ = train(model=own(), ema_decay=0.9)
    last, _ = train(model=own())
    assert not same_weights(averaged, last)
    assert all(torch.isfinite(value).all() for value in averaged.state_dict().values())


class Kept(nn.Module):
    """Buffers that have no average: a mask of -inf, a counter, which weights count. And its train() returns nothing."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Linear(192, 16), nn.Linear(16, 3)
        self.first, self.last = self.maps
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("counts", torch.ones(16, dtype=torch.bool))
        self.register_buffer("index", torch.zeros(0, dtype=torch.long), persistent=False)  # made by the first batch

    def train(self, mode=True):
        super().train(mode)

    def forward(self, images):
        if self.training:
            self.steps += 1
            self.index = torch.arange(len(images))
            self.counts.copy_(self.first.weight.abs().sum(1) > self.first.weight.abs().sum(1).median())
        heads = (self.first(images.flatten(1)) * self.counts).view(-1, 4, 4)
        return self.last(((heads @ heads.mT + self.mask).softmax(-1) @ heads).flatten(1))


def test_a_finished_checkpoint_is_given_back_with_a_word(tmp_path, capsys):
    train(checkpoint=tmp_path / "run.pt", epochs=1)
    assert "nothing is trained" not in capsys.readouterr().out
    train(checkpoint=tmp_path / "run.pt", epochs=1)
    assert f"{tmp_path / 'run.pt'} holds this run, finished: nothing is trained." in capsys.readouterr().out


def test_a_link_to_a_checkpoint_is_that_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(in_use, "PATIENCE", 0.0)
    (tmp_path / "link.pt").symlink_to("run.pt")
    with in_use.alone(tmp_path / "link.pt"), pytest.raises(RuntimeError, match="being trained at this moment"):
        train(checkpoint=tmp_path / "run.pt", epochs=1)


def test_what_has_no_average_is_as_the_last_step_left_it():
    torch.manual_seed(0)
    model, run = train(model=Kept(), ema_decay=0.9)
    assert model.steps == 3 * 4 and model.counts.sum() == 8 and run.last_top1 == evaluate(model, colours()).top1
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert saved_bytes_per_image(Kept(), (8, 8)) > 0
    average = WeightAverage(Kept(), 0.9)
    average.update(model)
    assert average.model.steps == model.steps and torch.equal(average.model.counts, model.counts)


def test_an_average_needs_a_model_that_can_be_copied():
    model = net()
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match="Net cannot be copied .*pickle.* averaging its weights takes a copy"):
        train(model=model, ema_decay=0.9)


def test_a_tensor_that_is_no_buffer_is_predicted_with():
    class Centred(Net):
        def __init__(self):
            super().__init__()
            self.mean = torch.full((3, 1, 1), 0.5)

        def forward(self, images):
            return super().forward(images - self.mean)

    centred, plain = (predict_peak_memory(model, 2, image_size=(8, 8)).bytes for model in (Centred(), net()))
    assert centred >= plain > 0


def test_options_that_are_no_numbers_come_back_from_the_checkpoint(tmp_path):
    def own():
        model = net()
        model.options = {"threshold": float("nan"), "limit": float("inf")}
        return model
    path = tmp_path / "run.pt"
    train(model=own(), checkpoint=path, epochs=1)
    _, run = train(model=own(), checkpoint=path, epochs=2)
    assert len(run.history) == 2 and run.options == {"threshold": "NaN", "limit": "Infinity"}


# --- Run ------------------------------------------------------------------------------------------------

def test_a_run_survives_its_file(tmp_path):
    model = net()
    model.name, model.config, model.options = "ViN", "uniform", {"patch_size": 4, "mixer": nn.Linear}
    _, run = train(model=model)
    assert (run.model, run.model_config, run.options["patch_size"]) == ("ViN", "uniform", 4)
    path = run.save(tmp_path / "folder" / "run.json")
    assert Run.load(path) == run
    saved = json.loads(path.read_text())
    assert saved["best_top1"] == run.best_top1 and saved["config"] == run.config.to_dict()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": "ViN"'])
def test_a_file_that_is_no_run_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json.*Run\.save"):
        Run.load(tmp_path / "run.json")


def test_a_run_with_a_damaged_field_is_named(tmp_path):
    _, run = train()
    for field, damaged in (("train_images", None), ("history", "abc"), ("history", [1]), ("train_seconds", [1]),
                           ("options", 3), ("finished", 1), ("calls", [{}]), ("calls", [1]), ("digest", 5),
                           ("peak_memory_bytes", "x"), ("options", {"position": ["rope"]})):
        (tmp_path / "run.json").write_text(json.dumps({**run.to_dict(), field: damaged}))
        with pytest.raises(ValueError, match=r"run\.json.*Run\.save"):
            Run.load(tmp_path / "run.json")
    with pytest.raises(ValueError, match="is no saved run"):
        Run.load(tmp_path)
    with pytest.raises(TypeError, match="path=None must be a path"):
        Run.load(None)


@pytest.mark.parametrize("made", [None, "a tuple", "a third dimension", "whole numbers"])
def test_what_is_no_logits_is_said(made):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, images):
            scores = self.net(images)
            return {None: None, "a tuple": (scores, 1), "a third dimension": scores[..., None],
                    "whole numbers": scores.argmax(1)}[made]

    data = colours()
    for call in (lambda: predict(Other(), data.test_images[:2]), lambda: evaluate(Other(), data),
                 lambda: fit(Other(), data, TrainConfig(epochs=1), progress=False),
                 lambda: saved_bytes_per_image(Other()), lambda: throughput(Other(), 2)):
        with pytest.raises((TypeError, ValueError), match="the model turned .* images into .*logits"):
            call()


def test_a_checkpoint_that_is_a_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="checkpoint=.* is a folder; name a file"):
        train(checkpoint=tmp_path)


def test_the_curves_show_the_history_with_units():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    _, run = train()
    ax = run.plot()
    other = next(axis for axis in ax.figure.axes if axis is not ax)
    assert list(ax.lines[0].get_ydata()) == [epoch["loss"] for epoch in run.history]
    assert list(other.lines[0].get_ydata()) == [epoch["top1"] for epoch in run.history]
    assert ax.get_xlabel() == "epoch" and "nats" in ax.get_ylabel() and "%" in other.get_ylabel()
    given = pyplot.subplots()[1]
    assert run.plot(given) is given
    pyplot.close("all")
    with pytest.raises(ValueError, match="no epoch to plot"):
        replace(run, history=[]).plot()


def test_a_run_without_epochs_has_no_scores():
    run = replace(train(epochs=1)[1], history=[])
    assert run.best_top1 is run.last_top1 is run.best_top5 is run.last_top5 is run.images_per_second is None
    assert "nothing measured yet" in repr(run)


# --- the progress bar -----------------------------------------------------------------------------------

@pytest.mark.parametrize("disabled", [False, True])
def test_one_bar_a_run_that_the_environment_can_switch_off(disabled):
    here = Path(__file__).resolve().parent
    code = (f"import sys; sys.path[:0] = {[str(here), str(here.parent)]!r}\n"
            "from test_train import *\n"
            "fit(net(), colours(), TrainConfig(epochs=3, batch_size=16), device='cpu')\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TQDM_")}
    if disabled:
        environment["TQDM_DISABLE"] = "1"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    shown = done.stderr.decode()  # not as text, which would turn carriage returns into new lines
    assert done.stdout == b""
    if disabled:
        assert shown == ""
    else:
        last = shown.split("\r")[-1]
        assert "Net on colours" in last and "12/12" in last and "epoch 3/3" in last
        assert shown.count("\n") == 1


# --- on a GPU -------------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@needs_gpu
@pytest.mark.parametrize("precision", ["auto", "float32", "float16"])
def test_every_precision_learns_and_resumes_on_a_gpu(precision, tmp_path):
    config = TrainConfig(epochs=6, batch_size=16, lr=0.01, precision=precision, augment=("flip",))
    path = tmp_path / "run.pt"
    fit(net(), colours(), replace(config, epochs=3), checkpoint=path, device="cuda", progress=False)
    run = fit(net(), colours(), config, checkpoint=path, device="cuda", progress=False)
    assert run.finished and run.best_top1 > 80 and run.peak_memory_bytes > 0


class SyncForbiddingBar:
    """Stands for the progress bar: between the first step and the last, torch raises if the host waits."""

    def __init__(self, steps):
        self.left = steps

    def update(self):
        self.left -= 1
        torch.cuda.set_sync_debug_mode("error" if self.left else "default")


@needs_gpu
@pytest.mark.parametrize("precision", ["auto", "float32", "float16"])
def test_the_host_never_waits_for_the_gpu_between_steps(precision):
    config = TrainConfig(batch_size=10, precision=precision, augment=("flip", "crop"))
    training, data = trainer._prepare(net(), colours(), config, torch.device("cuda"))
    training.enter_phase(1)
    try:
        trainer._train(training, data, SyncForbiddingBar(steps=6))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_model_that_was_trained_before_is_said_to_go_on(tmp_path):
    model = net()
    train(model=model, epochs=1)
    with pytest.warns(UserWarning, match="trained before.*build the model anew"):
        train(model=model, epochs=1)
    path, restored = tmp_path / "run.pt", net()
    train(checkpoint=path, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model=restored, checkpoint=path, epochs=1)  # its weights are the checkpoint's
    with pytest.warns(UserWarning, match="trained before"):
        train(model=restored, epochs=1)


def test_a_wrapped_model_is_known_to_have_been_trained():
    model = net()
    train(model=nn.DataParallel(model), epochs=1)
    with pytest.warns(UserWarning, match="trained before"):
        train(model=model, epochs=1)


def test_equal_settings_are_one_setting_however_their_numbers_are_written():
    whole, broken = TrainConfig(weight_decay=0, warmup_epochs=3), TrainConfig(weight_decay=0.0, warmup_epochs=3.0)
    assert json.dumps(whole.to_dict()) == json.dumps(broken.to_dict())


def test_pictures_that_were_changed_in_place_are_other_pictures(tmp_path):
    data, runs = colours(), []
    for seed in (0, 1):
        runs.append(train(data=data, epochs=1, seed=seed, checkpoint=tmp_path / f"{seed}.pt")[1])
        assert peek(tmp_path / f"{seed}.pt").digest == runs[-1].digest
        data.train_images.zero_()
    assert runs[0].digest != runs[1].digest


def test_a_finished_run_is_given_back_from_where_nothing_can_be_written(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    model, _ = train(checkpoint=path, epochs=1)

    def refuse(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(trainer, "require_writable", refuse)
    assert same_weights(train(checkpoint=path, epochs=1)[0], model)
    with pytest.raises(OSError, match="Read-only"):
        train(checkpoint=path, epochs=2)


def test_complex_parameters_are_trained():
    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.turn = net(), nn.Parameter(torch.ones(3, dtype=torch.complex64))

        def forward(self, images):
            return (self.net(images) * self.turn).real

    assert train(model=Turning(), epochs=1)[1].finished and throughput(Turning(), 2, repeats=1) > 0


def test_what_on_epoch_draws_at_random_does_not_move_the_run(tmp_path):
    path = tmp_path / "run.pt"
    whole, _ = train(epochs=3, on_epoch=lambda run: torch.rand(7))
    train(checkpoint=path, epochs=2, on_epoch=lambda run: torch.rand(7))
    resumed, _ = train(checkpoint=path, epochs=3)
    assert same_weights(whole, resumed) and same_weights(whole, train(epochs=3)[0])


def test_what_on_epoch_draws_at_random_is_another_each_time_and_the_same_in_each_run():
    drawn = []
    for _ in range(2):  # without dropout nothing else moves the generator
        train(model=net(dropout=0.0), epochs=3, on_epoch=lambda run: drawn.append(torch.rand(7)))
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])
    assert all(map(torch.equal, drawn[:3], drawn[3:]))


def test_weights_that_on_epoch_changes_are_those_that_a_run_goes_on_from(tmp_path):
    def halve(model, run):
        with torch.no_grad():
            next(model.parameters()).mul_(0.5)

    whole, path = net(), tmp_path / "run.pt"
    train(model=whole, epochs=3, on_epoch=lambda run: halve(whole, run))
    for epochs in (2, 3):
        model = net()
        train(model=model, epochs=epochs, checkpoint=path, on_epoch=lambda run, model=model: halve(model, run))
    assert same_weights(whole, model)


@pytest.mark.parametrize(("change", "words"), [
    (lambda model: next(model.parameters()).requires_grad_(False), "not trained after"),
    (lambda model: setattr(next(part for part in model.modules() if isinstance(part, nn.Conv2d)), "stride", (2, 2)),
     r"stride is \(1, 1\) before, \(2, 2\) after")])
def test_what_on_epoch_changes_and_no_checkpoint_holds_is_named(tmp_path, change, words):
    """A run that goes on would be another one without a word."""
    model = net()
    with pytest.raises(ValueError, match=f"on_epoch has changed the model: .*{words}") as error:
        train(model=model, checkpoint=tmp_path / "run.pt", on_epoch=lambda run: change(model))
    assert len(error.value.run.history) == 1 and (tmp_path / "run.pt").exists()
    assert train(model=(model := net()), epochs=1, on_epoch=lambda run: change(model))[1].finished


def test_gradients_are_computed_where_they_were_switched_off():
    with torch.no_grad():
        model, run = train(epochs=1)
        assert same_weights(model, train(epochs=1)[0]) and saved_bytes_per_image(net()) > 0
    assert saved_bytes_per_image(net()) == saved_bytes_per_image(net())
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode.*call it outside"):
        fit(net(), colours(), progress=False)


@pytest.mark.parametrize("change", ["frozen", "part"])
def test_a_checkpoint_of_a_model_that_is_made_otherwise_is_refused(tmp_path, change):
    path, other = tmp_path / "run.pt", net()
    train(checkpoint=path, epochs=1)
    if change == "frozen":
        other.layers[0].requires_grad_(False)
    else:
        other.layers[2] = nn.GELU()
    with pytest.raises(ValueError, match="what the models are made of differ: .*(not trained|GELU)"):
        train(model=other, checkpoint=path, epochs=2)


def test_every_picture_counts_in_what_tells_data_apart():
    data = colours()
    for part in ("train_images", "test_images"):
        changed = getattr(data, part).clone()
        changed[17] = 255 - changed[17]
        assert replace(data, **{part: changed}).digest != data.digest
    assert replace(data).digest == data.digest


def test_a_folder_of_the_users_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    train(checkpoint="~/run.pt", epochs=1)
    assert (tmp_path / "run.pt").exists()


def test_a_place_that_nothing_can_be_written_to_is_said_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    called = []
    for bad in (tmp_path / "file" / "run.pt", "a\0b"):
        with pytest.raises((OSError, ValueError), match="cannot write|null character"):
            train(checkpoint=bad, on_epoch=called.append)
    assert not called


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_average_of_complex_weights_is_the_one_that_is_scored(with_bias):
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.weight = nn.Parameter(0.1 * torch.randn(192, 3, dtype=torch.cfloat))
            self.bias = nn.Parameter(torch.zeros(3)) if with_bias else 0

        def forward(self, x):
            return (x.flatten(1).to(torch.cfloat) @ self.weight).real + self.bias

    start = Complex().weight.detach().clone()
    model, run = train(model=Complex(), ema_decay=0.5, lr=0.01)
    assert (model.weight - start).abs().max() > 0.01
    assert evaluate(model, colours()).top1 == run.last_top1


def test_torchs_default_device_and_type_change_no_run():
    whole, expected = train(epochs=1)
    model, other, data = net(), net(), colours()
    with torch.device("meta"):
        found, run = train(model=model, data=data, epochs=1)
        assert len(make_shapes(train=20, test=10).subset(0.5).train_labels) == 10
        assert saved_bytes_per_image(model) == saved_bytes_per_image(whole)
    assert same_weights(found, whole) and run.history[0]["loss"] == expected.history[0]["loss"]
    for dtype in (torch.float64, torch.float16):
        torch.set_default_dtype(dtype)
        try:
            found, run = train(model=copy.deepcopy(other), data=data, epochs=1)
        finally:
            torch.set_default_dtype(torch.float32)
        assert same_weights(found, whole) and run.history[0]["loss"] == expected.history[0]["loss"]


def test_a_checkpoint_stays_where_it_began_when_the_working_folder_changes(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    train(checkpoint="run.pt", on_epoch=lambda run: os.chdir(tmp_path / "other"))
    assert not list((tmp_path / "other").iterdir())
    assert train(checkpoint=tmp_path / "run.pt")[1].finished


@pytest.mark.parametrize("own", [
    {"options": "Namespace(width=8)"}, {"options": [1, 2]}, {"options": {(1, 2): 3, "width": 8}},
    {"options": nn.Linear(1, 1)}, {"channels": [3, 8]}, {"channels": nn.Conv2d(3, 8, 1)}, {"image_size": 8.0},
    {"image_size": (3, 8, 8)}, {"num_classes": "three"}], ids=str)
def test_what_a_model_of_ones_own_calls_by_a_name_of_ours_may_be_anything(own, tmp_path):
    """It was trained, and what was trained could not be read back."""
    def made():
        model = net()
        for name, value in own.items():
            setattr(model, name, value)
        return model

    train(model=made(), epochs=1, checkpoint=tmp_path / "run.pt")
    whole, run = train(model=made())
    resumed, again = train(model=made(), checkpoint=tmp_path / "run.pt")
    assert same_weights(resumed, whole) and len(again.history) == 3
    assert saved_bytes_per_image(made()) == saved_bytes_per_image(net())


def test_settings_at_the_ends_of_what_is_allowed_train():
    assert train(betas=(0, 0), epochs=1)[1].finished
    assert train(batch_size=2**24, epochs=1)[1].finished  # four times as many images are too many to evaluate at once


def test_a_parameter_without_numbers_is_no_failure():
    model = net()
    model.nothing = nn.Parameter(torch.empty(0))
    assert train(model=model, epochs=1)[1].finished
    only = nn.Flatten()
    only.nothing = nn.Parameter(torch.empty(0))
    with pytest.raises(ValueError, match="model=Flatten has no parameters that are trained"):
        train(model=only)


def test_the_advice_is_about_the_rate_that_was_too_high():
    with pytest.raises(FloatingPointError, match=r"use a lower sgd_lr than 1e\+25"):
        train(sgd_from=1, sgd_lr=1e25)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_model_of_ones_own_in_another_type_is_named(dtype):
    model = net().to(dtype)
    for ask in (lambda: train(model=model), lambda: evaluate(model, colours()),
                lambda: predict(model, colours().test_images)):
        with pytest.raises(TypeError, match=rf"model=Net (has weights of|trains .* in) {dtype}, .*call model.float"):
            ask()


def test_a_buffer_without_numbers_is_named():
    model = net()
    model.register_buffer("table", torch.zeros(3, device="meta"))
    with pytest.raises(ValueError, match="model=Net is on the meta device"):
        evaluate(model, colours())


def test_what_does_not_fit_a_machines_memory_is_computed_in_parts():
    def compute(images):
        if len(images) > 2:
            raise MemoryError
        return images + 1

    assert torch.equal(in_parts(compute, torch.arange(9.0)), torch.arange(9.0) + 1)


# --- What an own model or on_epoch may do -----------------------------------------------------------------

def test_autocast_around_the_call_changes_nothing():
    alone, _ = train()
    with torch.autocast("cpu", torch.bfloat16):
        inside, run = train()
    assert run.precision == "float32" and same_weights(alone, inside)


@pytest.mark.parametrize("outer", [False, True])
def test_weights_that_have_changed_are_converted_anew_inside_another_autocast(outer):
    layer, x = nn.Linear(4, 4, bias=False), torch.ones(1, 4)
    with torch.autocast("cpu", torch.bfloat16, enabled=outer):
        with computing_in("bfloat16", x):
            layer(x)
        layer.weight.data.fill_(0.5)
        with computing_in("bfloat16", x):
            assert (layer(x) == 2).all()


def test_out_of_memory_in_on_epoch_is_not_the_batch_s():
    def draw(run):
        raise MemoryError("drawing a figure")

    with pytest.raises(MemoryError, match="drawing a figure"):
        train(on_epoch=draw)


def test_an_error_of_on_epoch_is_left_as_it_is(tmp_path):
    def divide(run):
        raise FloatingPointError("of my own")

    with pytest.raises(FloatingPointError, match="^of my own$"):
        train(on_epoch=divide, checkpoint=tmp_path / "run.pt")


class Masked(nn.Module):
    """Makes a mask in its first call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", None, persistent=False)

    def forward(self, scores):
        self.mask = torch.ones_like(scores[:1]).detach() if self.mask is None else self.mask
        return scores * self.mask


class Remembering(Net):
    """Makes a buffer in its first step, which no new model has."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", None)

    def forward(self, images):
        self.seen = images.detach().mean((0, 2, 3))
        return super().forward(images)


def test_a_state_that_grew_in_training_is_named_and_not_written(tmp_path):
    with pytest.raises(ValueError, match="could not be read back: seen of model=Remembering") as caught:
        train(model=Remembering(), checkpoint=tmp_path / "run.pt")
    assert len(caught.value.run.history) == 1 and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="ema_decay averages the tensors that a model has before"):
        train(model=Remembering(), ema_decay=0.9)
    with pytest.raises(ValueError, match="ema_decay averages the tensors that a model has before"):
        train(model=nn.Sequential(net(), Masked()), ema_decay=0.9)  # the last of its tensors
    assert train(model=Remembering())[1].finished


def test_a_part_put_in_during_training_would_never_be_trained():
    model = net()

    def replace_head(run):
        model.layers[-1] = nn.Linear(8, 3)

    with pytest.raises(ValueError, match=r"model=Net got layers\.6\.weight after its training began") as caught:
        train(model=model, on_epoch=replace_head)
    assert len(caught.value.run.history) == 1


def test_a_detached_model_and_a_single_picture_to_normalise_over_are_named():
    class Detached(Net):
        def forward(self, images):
            return super().forward(images).detach()

    with pytest.raises(ValueError, match="model=Detached gives logits that depend on nothing that is trained"):
        train(model=Detached())
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="normalises over a batch of 1 picture.*choose a batch_size"):
        train(model=flat, data=colours(train=33))


def test_a_model_that_looks_at_numbers_cannot_be_predicted():
    class Looking(Net):
        def forward(self, images):
            return super().forward(images) * (2 if images.sum() > 0 else 1)

    with pytest.raises(ValueError, match="model=Looking cannot be predicted .*no numbers"):
        predict_peak_memory(Looking(), 2, image_size=(8, 8))


def test_a_checkpoint_of_the_longest_name_is_held_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(in_use, "PATIENCE", 0.0)
    path = tmp_path / ("r" * 252 + ".pt")
    with in_use.alone(path), pytest.raises(in_use.CheckpointInUse), in_use.alone(path):
        pass


def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe or device"):
        train(checkpoint=tmp_path / "pipe")


def test_two_runs_at_once_on_one_checkpoint_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(in_use, "PATIENCE", 0.1)
    path = tmp_path / "run.pt"

    def again(run):
        with pytest.raises(RuntimeError, match="that of a run which is being trained at this moment"):
            train(checkpoint=path)
        train(checkpoint=tmp_path / "other.pt", epochs=1)

    _, run = train(checkpoint=path, on_epoch=again)
    assert run.finished and sorted(os.listdir(tmp_path)) == ["other.pt", "run.pt"]
