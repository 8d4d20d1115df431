"""One run over several processes is the run of one: losses, weights, resuming, and who writes."""
from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from vixlib import ImageData, TrainConfig, fit
from vixlib.train import parallel

HERE = Path(__file__).resolve().parent
CONFIG = TrainConfig(epochs=2, batch_size=15, augment=("flip", "crop"), warmup_epochs=1, schedule="cosine",
                     label_smoothing=0.1, ema_decay=0.9)
SGD = TrainConfig(epochs=2, batch_size=16, sgd_from=1, sgd_lr=0.1)  # weights move as their gradients do


def pictures(train: int = 64) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    parts = []
    for count in (train, 20):
        parts += [torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8),
                  torch.randint(3, (count,), generator=generator)]
    return ImageData("pictures", ("a", "b", "c"), *parts)


def net(batch_norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6) if batch_norm else nn.GroupNorm(2, 6), nn.GELU(),
                         nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3))


class InShares(nn.Module):
    """What two processes without SyncBatchNorm compute: each half of a batch is normalised by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net(batch_norm=True)

    def forward(self, images):
        if not self.training:
            return self.net(images)
        result = torch.empty(len(images), 3)
        for first in (0, 1):
            result[first::2] = self.net(images[first::2])
        return result


def run(model: nn.Module, config: TrainConfig, **more):
    return model, fit(model, pictures(), config, device="cpu", progress=False, **more)


def dropping() -> nn.Module:
    return nn.Sequential(net()[:-1], nn.Dropout(0.5), nn.Linear(24, 3))


def with_unused_part() -> nn.Module:
    model = net()
    model[-1].unused = nn.Linear(2, 2)
    return model


def why(call, *arguments, **options) -> str:
    """The ValueError of a call."""
    try:
        call(*arguments, **options)
    except ValueError as error:
        return str(error)


def one_of_two(folder: str) -> None:
    """What each of the two processes does; the first one saves what came of it."""
    torch.set_num_threads(1)
    with parallel.processes():
        here = Path(folder, f"machine{parallel.rank()}")  # as if the processes shared no disk
        results = {"plain": run(net(), CONFIG, checkpoint=here / "plain.pt"), "sgd": run(net(), SGD),
                   "batch norm": run(net(batch_norm=True), SGD)}
        draws = torch.initial_seed()  # of the generator that dropout draws from
        part = {"checkpoint": here / "resumed.pt"}
        _, first = run(net(), CONFIG, **part, minutes=1e-9)
        results["resumed"] = run(net(), CONFIG, **part)
        results["dropout"], part = run(dropping(), SGD), {"checkpoint": here / "dropped.pt"}
        run(dropping(), SGD, **part, minutes=1e-9)
        results["dropout resumed"] = run(dropping(), SGD, **part)
        refused = [why(run, net(), replace(CONFIG, batch_size=63)), why(run, with_unused_part(), SGD),
                   why(fit, net(), pictures(64 + parallel.rank()), SGD, device="cpu")]
        runs = {name: made.to_dict() for name, (_, made) in results.items()}
        models = {name: model.state_dict() for name, (model, _) in results.items()}
        torch.save({"size": parallel.size(), "epochs first": len(first.history), "refused": refused, "runs": runs,
                    "models": models, "draws": draws}, Path(folder, f"{parallel.rank()}.pt"))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, list[dict], str]:
    """The folder of two processes that ran `one_of_two`, what they saved, and what the first one said."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import sys; sys.path[:0] = {[str(HERE), str(HERE.parent)]!r}\n" \
           f"from test_parallel import one_of_two; one_of_two({str(folder)!r})"
    # As torchrun sets them; without its own process, which would only take time here.
    told = {**os.environ, "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    both = [subprocess.Popen([sys.executable, "-c", code], env={**told, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                             stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    said = [process.communicate(timeout=240)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)], said[0]


def test_each_process_draws_its_own_dropout_and_the_first_one_a_single_ones(two):
    _, (first, second), _ = two
    assert first["draws"] == SGD.seed != second["draws"]


def close(ours: dict, theirs: dict, names=None) -> None:
    for name in names or ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "sgd"])
def test_two_processes_make_the_run_of_one_with_the_whole_batch(two, name):
    # 64 images in batches of 15: shares of 8 and 7, and of 2 and 2 in the last one.
    _, saved, _ = two
    model, made = run(net(), {"plain": CONFIG, "sgd": SGD}[name])
    for process in saved:
        assert process["size"] == 2
        close(process["models"][name], model.state_dict())
        for ours, theirs in zip(process["runs"][name]["history"], made.history, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
            assert (ours["epoch"], ours["top1"], ours["top5"]) == (theirs["epoch"], theirs["top1"], theirs["top5"])
    assert saved[0]["runs"][name]["device"] == f"2 x {made.device}"


def test_batch_norm_on_cpus_takes_each_share_by_itself_and_says_so(two):
    _, saved, said = two
    shares, _ = run(InShares(), SGD)
    whole, _ = run(net(batch_norm=True), SGD)
    ours, weights = saved[0]["models"]["batch norm"], [name for name, _ in whole.named_parameters()]
    close(ours, shares.net.state_dict(), weights)
    assert not all(torch.allclose(ours[name], whole.state_dict()[name], rtol=1e-4, atol=1e-4) for name in weights)
    assert "BatchNorm normalises each of 2 processes' share" in said


def test_only_the_first_process_writes_and_its_checkpoint_resumes_both(two):
    folder, saved, _ = two
    assert sorted(path.name for path in folder.iterdir()) == ["0.pt", "1.pt", "machine0"]
    assert sorted(path.name for path in (folder / "machine0").iterdir()) == ["dropped.pt", "plain.pt", "resumed.pt"]
    for process in saved:
        assert process["epochs first"] == 1
        for part, all_at_once in (("resumed", "plain"), ("dropout resumed", "dropout")):
            ours, whole = process["models"][part], process["models"][all_at_once]
            assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_a_batch_too_small_for_all_processes_is_refused(two):
    assert all("batch_size=63 leaves a batch of 1 images for 2 processes" in process["refused"][0]
               for process in two[1])


def test_a_part_that_no_gradient_reaches_is_named(two):
    assert all("5.unused.weight takes no part in the result" in process["refused"][1] for process in two[1])


def test_processes_with_other_pictures_than_the_first_are_refused(two):
    assert all("process 1 has other pictures than process 0" in process["refused"][2] for process in two[1])


def test_alone_nothing_is_shared():
    batch = torch.arange(5)
    assert parallel.size() == 1 and parallel.rank() == 0 and parallel.from_first("it") == "it"
    assert torch.equal(parallel.share(batch), batch) and torch.equal(parallel.mean(batch), batch)
    model = net()
    assert parallel.together(model, torch.device("cpu")) is model
