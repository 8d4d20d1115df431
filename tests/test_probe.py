"""Shift consistency against models whose answer to a moved picture is known."""
from __future__ import annotations

import pytest
import torch
from gains import awake
from torch import nn

import vixlib as vix
from vixlib.measure.probe import (
    attention_maps,
    mixer_inputs,
    mixer_row,
    nystrom_row,
    shift_consistency,
    shift_images,
    softmax_row,
)
from vixlib.mixers import LinformerAttention, NystromAttention

SMALL = {"image_size": 16, "patch_size": 4, "dim": 32, "depth": 1, "heads": 2, "dim_head": 8, "mlp_dim": 32}


class OfPixels(nn.Module):
    """Features that `look` makes of the picture, and as many class scores, the features themselves."""

    def __init__(self, look):
        super().__init__()
        self.look, self.head, self.scale = look, nn.Identity(), nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.head(self.scale * self.look(images))


def pictures(count=40, size=16):
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("padding", ["reflect", "zero"])
def test_moving_by_hand(padding):
    image = torch.arange(1.0, 10.0).view(1, 1, 3, 3)  # 1 2 3 / 4 5 6 / 7 8 9
    down, left = shift_images(image, 1, 0, padding)[0, 0], shift_images(image, 0, -1, padding)[0, 0]
    comes_in = [4.0, 5.0, 6.0] if padding == "reflect" else [0.0, 0.0, 0.0]
    assert down.tolist() == [comes_in, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert left[:, -1].tolist() == ([2.0, 5.0, 8.0] if padding == "reflect" else [0.0] * 3)
    assert left[:, :2].tolist() == [[2.0, 3.0], [5.0, 6.0], [8.0, 9.0]]
    assert torch.equal(shift_images(image, 0, 0, padding), image)


def test_an_invariant_model_does_not_notice_and_a_rigid_one_does():
    images = pictures()
    images[:, :, :6], images[:, :, -6:], images[..., :6], images[..., -6:] = 0, 0, 0, 0  # nothing leaves the picture
    labels = torch.zeros(len(images), dtype=torch.int64)
    invariant = shift_consistency(OfPixels(lambda x: x.mean(dim=(2, 3))), images, labels, padding="zero")
    assert all(s.agreement == 100 and s.cosine == pytest.approx(1) for s in invariant)
    assert len({round(s.top1, 9) for s in invariant}) == 1
    rigid = shift_consistency(OfPixels(lambda x: x[:, 0].flatten(1)), images, labels, padding="zero")
    assert rigid[0].cosine == pytest.approx(1) and rigid[0].agreement == 100
    assert all(abs(s.cosine) < 0.35 and s.agreement < 50 for s in rigid[1:])  # white noise has no memory


def test_accuracy_agreement_and_cosine_of_a_model_counted_by_hand():
    """A model that looks at one column: white there means class 1. The stripe moves through it."""
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    images[1, :, :, 4] = 255
    model = OfPixels(lambda x: torch.stack([-x[:, 0, 0, 4], x[:, 0, 0, 4]], dim=1))
    still, moved = shift_consistency(model, images, torch.tensor([0, 1]), shifts=(0, 1), padding="zero")
    assert still == (0, 100.0, 100.0, pytest.approx(1.0))
    # The black picture stays black. The white stripe is still seen when it moves up; moved down, black comes in at
    # the place looked at, and sideways it leaves: right in one direction of four, cosine -1 in the other three.
    assert (moved.pixels, moved.top1, moved.agreement) == (1, 100 * (1 + 1 / 4) / 2, 62.5)
    assert moved.cosine == pytest.approx((1 + (1 - 3) / 4) / 2)


def test_scores_of_a_real_model_do_not_depend_on_the_batch_and_leave_it_as_it_was():
    model, images = vix.build("HybridViT", seed=0, **SMALL).train(), pictures()
    labels = torch.arange(len(images)) % 10
    whole, parts = (shift_consistency(model, images, labels, (0, 2), batch_size=size) for size in (64, 7))
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert model.training and not model.head._forward_pre_hooks
    data = vix.ImageData("test", tuple("0123456789"), images, labels, images, labels)
    assert whole[0].top1 == pytest.approx(vix.evaluate(model, data).top1)


def test_errors_name_what_to_do():
    model, images, labels = vix.build("ViT", **SMALL), pictures(), torch.zeros(40, dtype=torch.int64)
    with pytest.raises(ValueError, match="padding='wrap' is unknown"):
        shift_consistency(model, images, labels, padding="wrap")
    with pytest.raises(ValueError, match=r"shift by \(16, 0\) pixels .* at most 15 down"):
        shift_consistency(model, images, labels, shifts=(16,))
    with pytest.raises(ValueError, match="uint8"):
        shift_consistency(model, images.float(), labels)
    with pytest.raises(ValueError, match="no .head"):
        shift_consistency(nn.Identity(), images, labels)


def test_a_models_own_bias_is_part_of_its_maps_and_each_module_keeps_its_mode():
    model = awake(vix.build("LeViT", seed=0, patch_size=8, attention_bias=True, qkv_norm=False, depth=1))
    mixer = model.blocks[0].mixer
    nn.init.normal_(mixer.distance_bias, std=5.0)
    mixer.out_norm.eval()
    images = torch.randn(2, 3, 32, 32)
    (x, _), = mixer_inputs(model, images)
    assert model.training and not mixer.out_norm.training
    maps, = attention_maps(model, images)
    v = mixer.split(x, None)[2]
    model.eval()
    torch.testing.assert_close(mixer.join(maps @ v), mixer(x))
    torch.testing.assert_close(mixer_row(mixer, x, 3), maps[:, :, 3])
    with pytest.raises(ValueError, match="token=99 must be at most 15"):
        mixer_row(mixer, x, 99)


def test_maps_are_those_of_evaluation_and_leave_statistics_as_they_were():
    model = awake(vix.build("LeViT", seed=0, image_size=16, patch_size=4, depth=2))
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = attention_maps(model, images)
    row = mixer_row(model.blocks[0].mixer, mixer_inputs(model, images)[0][0], 3)
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for ours, of_evaluation in zip(trained, attention_maps(model.eval(), images), strict=True):
        torch.testing.assert_close(ours, of_evaluation)
    torch.testing.assert_close(row, trained[0][:, :, 3])


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: attention_maps(None, pictures()), ValueError, "model NoneType has no .blocks with mixers"),
    (lambda: mixer_row(linformer(), torch.randn(1, 6, 8), 0), ValueError, "x has 6 tokens .* projects 5"),
    (lambda: mixer_row(linformer(), torch.randn(5, 8), 0), ValueError, r"x has shape \(5, 8\)"),
    (lambda: mixer_row(linformer(), torch.randn(1, 5, 8), 1.5), TypeError, "token=1.5 must be an integer"),
    (lambda: shift_consistency(vix.build("ViT", **SMALL), [1], torch.zeros(1)), TypeError, r"images=\[1\] must be a t"),
    (lambda: shift_consistency(vix.build("ViT", **SMALL), pictures(), None), TypeError, "labels=None must be a tensor"),
    (lambda: shift_consistency(vix.build("ViT", **SMALL), pictures(4), torch.full((4,), 10)), ValueError,
     "labels run from 10 to 10, but 10 classes allow 0 to 9"),
    (lambda: shift_consistency(vix.build("ViT", **SMALL), pictures(), torch.zeros(4)), ValueError, "labels must be in"),
    (lambda: nystrom_row(*torch.randn(2, 1, 2, 9, 4), 0, 3, iterations=-1), ValueError, "iterations=-1 must be at l"),
    (lambda: shift_images(torch.zeros(16, 16), 1, 0), ValueError, r"images has shape \(16, 16\); expected \[B, C"),
    (lambda: shift_images(pictures().float(), 1.5, 0), TypeError, r"shift=\(1.5, 0\) must be a pair of integers"),
])
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("iterations", [6, 30, 40, None])
def test_nystroms_rows_are_what_its_mixer_applies_to_the_values(iterations):
    """Of quiet tokens, where a float32 inverse has lost all digits after 30 iterations."""
    torch.manual_seed(0)
    mixer = NystromAttention(16, heads=2, dim_head=8, seq_len=65, num_landmarks=16, iterations=iterations,
                             conv_kernel=0)
    x = 0.3 * torch.randn(1, 65, 16)
    with torch.no_grad():
        rows = torch.stack([mixer_row(mixer, x, token) for token in range(65)], dim=2)
        mixed = mixer(x)
        assert (mixer.join(rows @ mixer.split(x, None)[2]) - mixed).abs().max() < 0.03 * mixed.abs().max()


def test_the_token_of_a_row_is_one_of_those_there_are():
    q = torch.randn(1, 2, 9, 4, generator=torch.Generator().manual_seed(0))
    for token in (-1, 9):
        for row, more in ((softmax_row, ()), (nystrom_row, (3,))):
            with pytest.raises(ValueError, match=f"token={token} must be at"):
                row(q, q, token, *more)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_model_can_be_looked_into(in_place):
    plain, model = (vix.build("ViT", seed=0, **SMALL) for _ in range(2))
    if in_place:
        model.compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    one = pictures(2)
    vix.predict(model, one)  # compiled by this call, without hooks
    for ours, right in zip(attention_maps(model, one.float()), attention_maps(plain, one.float()), strict=True):
        torch.testing.assert_close(ours, right)
    labels = torch.zeros(2, dtype=torch.long)
    assert [score.pixels for score in shift_consistency(model, one, labels, (0, 1))] == [0, 1]


def test_a_picture_that_is_wider_than_high_moves_further_sideways():
    image = torch.arange(40.0).view(1, 1, 2, 20)
    moved = shift_images(image, 0, 10, "zero")[0, 0]
    assert torch.equal(moved[:, 10:], image[0, 0, :, :10]) and (moved[:, :10] == 0).all()
    with pytest.raises(ValueError, match="use at most 1 down or up and 19 to a side"):
        shift_images(image, 2, 0)


def test_shifts_may_come_one_by_one():
    scores = shift_consistency(vix.build("ViT", seed=0, **SMALL), pictures(4), torch.zeros(4, dtype=torch.long),
                               (pixels for pixels in (0, 1)))
    assert [score.pixels for score in scores] == [0, 1]


def linformer():
    return LinformerAttention(8, heads=2, dim_head=4, seq_len=5, rank=2)


def test_a_model_without_answers_agrees_with_nothing():
    model = vix.build("ViT", image_size=16, patch_size=4, depth=1, seed=0)
    model.head.weight.data.fill_(torch.nan)
    scores = shift_consistency(model, pictures(8), torch.zeros(8, dtype=torch.long), (0, 2))
    assert {(score.top1, score.agreement) for score in scores} == {(0.0, 0.0)}


def test_layers_may_share_a_block():
    model = vix.build("ViT", image_size=16, patch_size=4, depth=2, seed=0)
    model.blocks[1] = model.blocks[0]
    x = torch.randn(2, 3, 16, 16)
    first, second = mixer_inputs(model, x)
    assert not torch.equal(first[0], second[0]) and len(attention_maps(model, x)) == 2
