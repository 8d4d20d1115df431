"""Costs against the number of tokens: what is counted, and where two curves cross."""
from __future__ import annotations

import math

import pytest
import torch

from vixlib.measure.cost import crossing, mixer_bytes, mixer_seconds
from vixlib.mixers import LinformerAttention, SoftmaxAttention


def softmax(fused: bool):
    return lambda tokens: SoftmaxAttention(16, heads=2, dim_head=8, seq_len=tokens, fused=fused)


def test_bytes_kept_grow_as_the_algebra_says():
    builders = {"materialised": softmax(False), "fused": softmax(True),
                "linformer": lambda n: LinformerAttention(16, heads=2, dim_head=8, seq_len=n, rank=8)}
    kept = mixer_bytes(builders, [256, 512, 1024], dim=16)
    # The matrix alone, 2 heads x N x N floats, is a lower bound of what the materialised form keeps.
    assert all(bytes_ >= 2 * n * n * 4 for n, bytes_ in zip([256, 512, 1024], kept["materialised"], strict=True))
    assert kept["materialised"][2] / kept["materialised"][1] > 3.5
    for name in ("fused", "linformer"):
        assert 1.8 < kept[name][2] / kept[name][1] < 2.05, name


def test_seconds_are_positive_for_each_mixer_and_size_even_without_budget():
    state = torch.get_rng_state()
    tokens, seconds = mixer_seconds({"a": softmax(True), "b": softmax(False)}, 16, smallest=4, repeats=1, budget=0)
    mixer_bytes({"a": softmax(True)}, [4], dim=16)
    assert torch.equal(state, torch.get_rng_state())  # the caller's random numbers
    assert tokens == [4, 8, 16]
    assert all(len(values) == 3 and min(values) > 0 for values in seconds.values())


def test_measuring_a_mixer_that_draws_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    mixer_seconds({"own": lambda count: torch.nn.Dropout()}, 8, smallest=4, largest=16, repeats=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_crossing_of_a_quadratic_and_a_linear_cost_is_where_they_are_equal():
    tokens = [64, 128, 256, 512, 1024]
    quadratic, linear = [n * n for n in tokens], [300 * n for n in tokens]
    assert crossing(tokens, quadratic, linear) == pytest.approx(300)


def test_crossing_at_the_ends():
    assert crossing([1, 2, 4], [1, 1, 1], [2, 2, 2]) is None
    assert crossing([1, 2, 4], [2, 2, 2], [1, 1, 1]) == 1
    # Cheaper for a moment only: the last crossing counts.
    assert crossing([1, 2, 4, 8], [1, 2, 1, 2], [2, 1, 2, 1]) == pytest.approx(4 * 2 ** 0.5)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: crossing([1, 2], [0, 1], [1, 1]), r"reference=\[0, 1\] must be finite numbers above 0"),
    (lambda: crossing([1, 2], [1, 1], [1, 0]), r"other=\[1, 0\] must be finite numbers above 0"),
    (lambda: crossing([], [], []), r"tokens=\[\] must be finite numbers above 0, one or more"),
    (lambda: crossing([1, 2], [1, 1, 1], [1, 1]), "reference=.* must be 2 numbers"),
    (lambda: crossing([1, 2], [1, math.inf], [2, 1]), r"reference=\[1, inf\] must be finite numbers above 0"),
    (lambda: mixer_seconds({"a": softmax(True)}, 16, smallest=64, largest=128), "largest=128 must be at least four ti"),
    (lambda: mixer_bytes({"a": softmax(True)}, [4, 0], dim=16), r"tokens\[1\]=0 must be at least 1"),
    (lambda: mixer_seconds({}, 16, device="tpu"), "device='tpu' is no device"),
    (lambda: crossing([256, 128, 64], [1, 2, 3], [4, 2.5, 1]), r"tokens=\[256, 128, 64\] must grow"),
    (lambda: mixer_seconds({"a": softmax(True)}, 16, budget=-1), "budget=-1 must be a finite number of 0 or above"),
    (lambda: mixer_seconds({"a": softmax(True)}, -1), "dim=-1 must be at least 1"),
    (lambda: mixer_bytes({"a": softmax(True)}, [4], dim=0), "dim=0 must be at least 1"),
])
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
