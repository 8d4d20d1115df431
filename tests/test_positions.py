"""Rotary positions against complex numbers, their relative-shift property, and what CLS does."""
from __future__ import annotations

import cmath

import pytest
import torch

import vixlib as vix
from vixlib.embeddings import EMBEDDINGS
from vixlib.mixers import SoftmaxAttention
from vixlib.positions import AxialRotaryPosition, LearnedPosition, RotaryPosition, rotate

GRID, WIDTH = (5, 7), 12


def position(cls_, cls=False, **own):
    return cls_(dim=24, dim_head=WIDTH, grid=GRID, cls=cls, **own)


def qk(seed=0, tokens=35):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 2, tokens, WIDTH, dtype=torch.float64, generator=generator) for _ in range(2)]


def complex_rotation(x, place, base):
    """One vector turned feature pair by feature pair in Python's complex numbers; place: steps of each pair's axis."""
    turned = []
    pairs_per_axis = WIDTH // 2 // len(place)
    for i in range(WIDTH // 2):
        axis, j = divmod(i, pairs_per_axis)
        z = complex(x[2 * i], x[2 * i + 1]) * cmath.exp(1j * place[axis] * base ** (-j / pairs_per_axis))
        turned += [z.real, z.imag]
    return torch.tensor(turned, dtype=torch.float64)


@pytest.mark.parametrize(("kind", "base"), [(RotaryPosition, 10_000.0), (AxialRotaryPosition, 100.0)])
@pytest.mark.parametrize("cls", [False, True])
def test_equals_multiplication_by_complex_numbers(kind, base, cls):
    q, _ = qk(tokens=35 + cls)
    turned = position(kind, cls).rotary(GRID, q.device)(q)
    for n in range(35 + cls):
        pixel = n - cls
        if kind is RotaryPosition:
            place = (n,)
        else:
            place = (0, 0) if pixel < 0 else divmod(pixel, GRID[1])
        assert (turned[0, 1, n] - complex_rotation(q[0, 1, n].tolist(), place, base)).abs().max() < 1e-12


def scores(kind, cls=False):
    """All q·k of one fixed query vector and one fixed key vector put at every pair of places."""
    q, k = (t[:, :, :1].expand(-1, -1, 35 + cls, -1) for t in qk())
    turn = position(kind, cls).rotary(GRID, q.device)
    return (turn(q) @ turn(k).mT)[0, 0]


def test_1d_scores_depend_on_the_distance_in_the_sequence_alone():
    s = scores(RotaryPosition)
    for offset in range(-34, 35):
        assert s.diagonal(offset).std(unbiased=False) < 1e-12
    assert (s[0, 1] - s[0, 2]).abs() > 1e-3


def test_2d_scores_depend_on_the_offset_in_rows_and_columns_alone():
    s = scores(AxialRotaryPosition).reshape(*GRID, *GRID)
    for row, column in ((0, 1), (1, 0), (2, 3), (-1, 2)):
        values = torch.stack([s[r, c, r + row, c + column] for r in range(5) for c in range(7)
                              if 0 <= r + row < 5 and 0 <= c + column < 7])
        assert values.std(unbiased=False) < 1e-12
    # In 1-D the end of a row and the start of the next are neighbours; in 2-D they are not.
    assert (s[0, 6, 1, 0] - s[0, 0, 0, 1]).abs() > 1e-3
    one_d = scores(RotaryPosition).reshape(*GRID, *GRID)
    assert (one_d[0, 6, 1, 0] - one_d[0, 0, 0, 1]).abs() < 1e-12


def test_rotation_keeps_lengths_and_the_input_precision():
    q, _ = qk()
    turn = position(RotaryPosition).rotary(GRID, q.device)
    assert (turn(q).norm(dim=-1) - q.norm(dim=-1)).abs().max() < 1e-12
    assert turn(q.to(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["ViT", "ViP", "ViL", "ViN"])
@pytest.mark.parametrize("kind", ["rope", "rope2d"])
def test_rotary_positions_add_no_parameters(name, kind):
    none, rope = (vix.count_parameters(vix.build(name, position=p)).true for p in ("none", kind))
    assert none == rope


SHIFT_SIZES = {"dim": 24, "heads": 2, "dim_head": WIDTH}


@pytest.mark.parametrize(("mixer", "own", "invariant"), [
    ("softmax", {}, True), ("nystrom", {"num_landmarks": 7}, True), ("linformer", {"rank": 7}, True),
    ("performer", {}, False)])
def test_shifting_all_positions(mixer, own, invariant):
    """Softmax, Nyström and Linformer see offsets only; Performer's features see places too (by design: docstring)."""
    torch.manual_seed(0)
    layer = vix.mixers.MIXERS[mixer](24, heads=2, dim_head=WIDTH, seq_len=35, **own).double()
    x = torch.randn(1, 35, 24, dtype=torch.float64)
    angles = position(RotaryPosition).angles(GRID, x.device)
    step = angles[1]
    here, there = layer(x, rotary=lambda t: rotate(t, angles)), layer(x, rotary=lambda t: rotate(t, angles + 11 * step))
    error = (here - there).abs().max() / here.abs().max()
    assert error < 1e-12 if invariant else error > 1e-6


def test_linformer_rotates_keys_and_never_values():
    torch.manual_seed(0)
    layer = vix.mixers.LinformerAttention(24, heads=2, dim_head=WIDTH, seq_len=35, rank=7).double()
    x = torch.randn(1, 35, 24, dtype=torch.float64)
    turn = position(RotaryPosition).rotary(GRID, x.device)
    q, k = layer.as_heads(layer.to_q(x)), layer.as_heads(layer.to_k(x))
    keys, values = layer.project_k.T @ turn(k), layer.project_k.T @ k
    heads = SoftmaxAttention.attention(turn(q), keys.expand(-1, 2, -1, -1)) @ values
    assert (layer(x, rotary=turn) - layer.to_out(heads.transpose(1, 2).flatten(2))).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["rope", "rope2d", "none"])
def test_other_image_sizes_work_without_a_table(kind):
    model = vix.build("ViN", position=kind, patch_size=4, num_landmarks=16)
    assert model(torch.randn(1, 3, 48, 40)).shape == (1, 10)


def test_learned_table_needs_resizing_and_keeps_cls():
    model = vix.build("ViT", patch_size=4, depth=1)
    with pytest.raises(ValueError, match="12x12 tokens but the learned positions are for 8x8"):
        model(torch.randn(1, 3, 48, 48))
    cls = model.position.table[0, 0].clone()
    model.position.resize((12, 12))
    assert torch.equal(model.position.table[0, 0], cls) and model(torch.randn(1, 3, 48, 48)).shape == (1, 10)
    model.position.table.requires_grad_(False)
    model.position.resize([8, 8])
    assert not model.position.table.requires_grad and model(torch.randn(1, 3, 32, 32)).shape == (1, 10)
    for bad in (8, (0, 4), (2.5, 3), None, (2**20, 2**20)):
        with pytest.raises((TypeError, ValueError), match="grid="):
            model.position.resize(bad)


def test_resizing_a_smooth_table_keeps_its_shape():
    learned = position(LearnedPosition)
    rows = torch.linspace(0, 1, GRID[0]).repeat_interleave(GRID[1])
    learned.table.data = rows[None, :, None].expand(1, -1, 24).clone()
    learned.resize((10, 14))
    column = learned.table.detach()[0, :, 0].reshape(10, 14)
    assert (column.diff(dim=0) >= -1e-6).all() and (column - column[:, :1]).abs().max() < 1e-5


@pytest.mark.parametrize("position", ["learned", "rope2d"])
def test_a_model_scores_pictures_of_another_size_once_it_takes_them(position):
    model = vix.build("ViT", seed=0, image_size=16, patch_size=4, dim=32, depth=1, heads=2, dim_head=16, mlp_dim=32,
                      position=position)
    larger = vix.load("shapes", train=20, test=20)
    with pytest.raises(ValueError, match=r"set model.image_size = \(32, 32\)"):
        vix.evaluate(model, larger)
    if position == "learned":
        model.position.resize((8, 8))
    model.image_size = (32, 32)
    assert 0 <= vix.evaluate(model, larger).top1 <= 100


@pytest.mark.parametrize(("columns", "at"), [(9, slice(0, 8)), (10, slice(1, 9)), (8, slice(None))])
def test_views_of_any_layout_are_turned(columns, at):
    """As a mixer cuts them from a wider map, which complex numbers may not be laid out as."""
    x = torch.randn(2, 2, 5, columns, dtype=torch.float64)[..., at]
    angles = torch.randn(5, 4, dtype=torch.float64)
    assert torch.equal(rotate(x, angles), rotate(x.clone(memory_format=torch.contiguous_format), angles))


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 0, 8), (1, 1, 3, 8, 8)])
def test_an_embedding_called_by_itself_names_other_axes(name, shape):
    with pytest.raises(ValueError, match=r"images has shape .*; expected \[B, 3, H, W\]"):
        EMBEDDINGS[name](3, 8)(torch.zeros(shape))


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize(("images", "error", "words"), [
    (torch.zeros(1, 1, 8, 8), ValueError, r"expected \[B, 3, H, W\]"),
    (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "images has type torch.uint8"),
    (torch.zeros(1, 3, 8, 8, dtype=torch.float64), TypeError, "but the weights are torch.float32")])
def test_an_embedding_called_by_itself_names_other_pictures(name, images, error, words):
    with pytest.raises(error, match=words):
        EMBEDDINGS[name](3, 8)(images)


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: position(LearnedPosition).embed(torch.zeros(1, 1, 24), GRID), ValueError, r"expected .* \[B, 35, 24\]"),
    (lambda: LearnedPosition(dim=8, dim_head=4, grid=(0, 3), cls=True), ValueError, "rows=0 must be at least 1"),
    (lambda: RotaryPosition(dim=0, dim_head=4, grid=(2, 3), cls=True), ValueError, "dim=0 must be at least 1"),
    (lambda: rotate(torch.ones(5, 4), torch.ones(1, 2)), ValueError, r"angles has shape \(1, 2\) and x \(5, 4\)"),
    (lambda: rotate(torch.ones(5, 3), torch.ones(5, 1)), ValueError, "expected angles"),
    (lambda: rotate(torch.ones(5, 4), torch.ones(5, 2).long()), TypeError, "angles has type torch.int64"),
    (lambda: rotate(torch.tensor([[1, 0]]), torch.tensor([[0.8]])), TypeError, "x has type torch.int64"),
])
def test_what_no_position_is_for_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_grid_may_be_a_list():
    place = LearnedPosition(dim=8, dim_head=4, grid=[2, 3], cls=False)
    assert place.embed(torch.zeros(1, 6, 8), [2, 3]).shape == (1, 6, 8)
