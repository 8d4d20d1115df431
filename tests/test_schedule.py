"""Learning rates by formula, and the running average of weights by its definition."""
from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vixlib import TrainConfig
from vixlib.train.averaging import WeightAverage
from vixlib.train.schedule import learning_rate


def rates(steps_per_epoch: int = 10, **settings) -> list[float]:
    config = TrainConfig(**settings)
    return [learning_rate(config, step, steps_per_epoch) for step in range(config.epochs * steps_per_epoch)]


def test_the_papers_rate_is_constant():
    assert set(rates(epochs=3, lr=3e-4)) == {3e-4}


def test_warm_up_rises_in_equal_steps_to_the_full_rate():
    values = rates(epochs=4, lr=1.0, warmup_epochs=2)
    assert values[:20] == pytest.approx([(step + 1) / 20 for step in range(20)]) and set(values[20:]) == {1.0}
    assert max(rates(epochs=4, lr=1.0, warmup_epochs=0.25)) == 1.0  # two steps and a half: never above


def test_cosine_falls_from_the_full_rate_to_almost_zero_halfway_at_half():
    values = rates(epochs=4, lr=2.0, warmup_epochs=2, schedule="cosine")
    assert values[20] == 2.0 and values[30] == pytest.approx(1.0)
    assert values[39] == pytest.approx(1 + math.cos(math.pi * 19 / 20)) and 0 < values[39] < 0.02
    assert sorted(values[20:], reverse=True) == values[20:]
    assert sum(rates(epochs=4, lr=1.0, schedule="cosine")) == pytest.approx(20.5)  # a half step above the mean


def test_the_second_phase_has_its_own_constant_rate_and_cosine_ends_before_it():
    values = rates(epochs=5, lr=1.0, schedule="cosine", sgd_from=4, sgd_lr=0.3)
    assert values[:30] == rates(epochs=3, lr=1.0, schedule="cosine") and set(values[30:]) == {0.3}
    assert set(rates(epochs=2, lr=1.0, sgd_from=1, sgd_lr=0.3)) == {0.3}


@pytest.mark.parametrize(("settings", "message"), [
    ({"schedule": "linear"}, "schedule='linear'"), ({"warmup_epochs": -1}, "warmup_epochs=-1"),
    ({"epochs": 3, "warmup_epochs": 3}, "warmup_epochs=3 must be less than the 3 epochs that AdamW trains"),
    ({"warmup_epochs": 2, "sgd_from": 3}, "less than the 2 epochs"), ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
    ({"ema_decay": 1}, "ema_decay=1"), ({"ema_decay": float("nan")}, "ema_decay=nan"),
])
def test_a_bad_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_buffers_that_are_no_statistics_have_no_average():
    """A mean of Performer's random directions would be shorter than they are, and no longer orthogonal."""
    class Own(nn.Sequential):
        def __init__(self):
            super().__init__(nn.BatchNorm1d(3))
            self.register_buffer("directions", torch.zeros(3))

    model = Own()
    average = WeightAverage(model, decay=0.5)
    for step in range(1, 4):
        model.directions.fill_(step)
        model[0].running_mean.fill_(step)
        average.update(model)
    assert average.model.directions.tolist() == [3.0] * 3
    assert all(1 < mean < 3 for mean in average.model[0].running_mean.tolist())


def test_the_average_follows_its_recurrence_and_leaves_counters_alone():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = WeightAverage(model, decay=0.5)
    expected = model[0].weight.detach().double()
    for step in range(1, 30):
        with torch.no_grad():
            model[0].weight += torch.randn(3, 3, generator=torch.Generator().manual_seed(step))
            model[1].num_batches_tracked += 1
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model[0].weight.detach().double()
    torch.testing.assert_close(average.model[0].weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(average.model[0].weight, model[0].weight)
    average.copy_to(model)
    assert torch.equal(average.model[0].weight, model[0].weight) and model[1].num_batches_tracked == 29
    assert model[0].weight.requires_grad and not average.model[0].weight.requires_grad
