"""check_mixer tells apart mixers of which it is known what they do."""
from __future__ import annotations

import pytest
import torch
from torch import nn

from vixlib import mixers
from vixlib.measure.checkup import check_mixer


class Interface(nn.Module):
    def __init__(self, dim, *, heads, dim_head, seq_len):
        super().__init__()
        self.map = nn.Linear(dim, dim)


class Mean(Interface):
    def forward(self, x, rotary=None):
        return self.map(x).mean(dim=1, keepdim=True).expand_as(x)


class Neighbours(Interface):
    def forward(self, x, rotary=None):
        return self.map(x) + x.roll(1, dims=1)


class AcrossPictures(Interface):
    def forward(self, x, rotary=None):
        return self.map(x) + x.mean(dim=0, keepdim=True)


class WrongGradient(Interface):
    def forward(self, x, rotary=None):
        return self.map(x) * x.detach()


class HalfInFloat32(Interface):
    def forward(self, x, rotary=None):
        return (x @ self.map(x).mT).softmax(dim=-1, dtype=torch.float32).to(x.dtype) @ x


class WrongInFloat32(Interface):
    def forward(self, x, rotary=None):
        return (x @ self.map(x).mT.detach()).softmax(dim=-1, dtype=torch.float32).to(x.dtype) @ self.map(x)


class InPlace(Interface):
    def forward(self, x, rotary=None):
        x += self.map(x)
        return x


class Idle(Mean):
    def __init__(self, dim, **shape):
        super().__init__(dim, **shape)
        self.unused = nn.Parameter(torch.ones(3))


def test_what_is_computed_in_float32_on_purpose_is_no_error():
    found = check_mixer(HalfInFloat32, dim=16)
    assert found.coarse and 0 < found.permutation < 1e-5 and found.gradient < 1e-3
    assert "a set" in str(found) and "right, as far as" in str(found)
    assert "WRONG" in str(check_mixer(WrongInFloat32, dim=16)) and not check_mixer(Mean).coarse


class Alone(Interface):
    def forward(self, x, rotary=None):
        return self.map(x)


class NoRotary(Interface):
    def forward(self, x):
        return self.map(x)


class InAList(Interface):
    def __init__(self, dim, **shape):
        super().__init__(dim, **shape)
        self.maps = [nn.Linear(dim, dim)]

    def forward(self, x, rotary=None):
        return self.map(self.maps[0](x))


@pytest.mark.parametrize(("mixer", "error", "words"), [
    (InPlace, ValueError, r"InPlace writes into the tokens .* x \+ y instead of x \+= y"),
    (NoRotary, TypeError, r"rotary.*; a mixer is called as mixer\(x, rotary=None\)"),
    (InAList, TypeError, "InAList cannot mix float64 tokens.*nn.ModuleList")])
def test_a_mistake_that_is_often_made_is_named(mixer, error, words):
    with pytest.raises(error, match=words):
        check_mixer(mixer)


def test_what_passes_nothing_between_tokens_is_said():
    assert "itself alone" in str(check_mixer(Alone)) and "only through further" in str(check_mixer(Neighbours))


def test_what_each_is_found_to_be():
    mean, near, across = check_mixer(Mean), check_mixer(Neighbours), check_mixer(AcrossPictures)
    assert mean.permutation < 1e-12 and mean.reach == 1 and mean.gradient < 1e-6 and mean.idle == ()
    assert near.permutation > 0.1 and near.reach == pytest.approx(2 / 65)
    assert mean.neighbours == 0 and across.neighbours > 0.1
    assert check_mixer(WrongGradient).gradient > 0.01
    assert "WRONG" in str(check_mixer(WrongGradient)) and "right" in str(mean)
    assert check_mixer(Idle).idle == ("unused",)


def test_the_projects_own_mixers_pass_as_they_are_built_by_default():
    for name in ("performer", "linformer", "nystrom"):
        found = check_mixer(mixers.MIXERS[name])
        assert "WRONG" not in str(found) and found.neighbours < 1e-9, name


def test_costs_of_known_growth():
    whole, fused = (check_mixer(mixers.SoftmaxAttention, fused=fused).exponents[0] for fused in (False, True))
    assert 1.8 < whole < 2 and 0.95 < fused < 1.05
    assert "N^1.0" in check_mixer(mixers.LinformerAttention, rank=8).table._repr_html_()


def test_what_is_missing_is_named():
    class Narrow(Interface):
        def forward(self, x, rotary=None):
            return x[..., 1:]

    with pytest.raises(ValueError, match=r"Narrow turned \[2, 65, 64\] into \[2, 65, 63\]"):
        check_mixer(Narrow)
    with pytest.raises(TypeError, match="must be a class"):
        check_mixer(nn.Identity())
    with pytest.raises(TypeError, match=r"it was built as Linear\(dim, heads=..., dim_head=..., seq_len=...\)"):
        check_mixer(nn.Linear)


def test_random_numbers_are_the_same_in_what_is_compared(monkeypatch):
    class Dropped(Mean):
        def forward(self, x, rotary=None):
            return nn.functional.dropout(super().forward(x), 0.1, self.training)

    class Noisy(Mean):
        def forward(self, x, rotary=None):
            return super().forward(x) * torch.randn_like(x)

    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU's random numbers were seeded"))
    state = torch.get_rng_state()
    dropped, noisy = check_mixer(Dropped), check_mixer(Noisy)
    assert dropped.neighbours == noisy.neighbours == 0 and dropped.permutation < 1e-12
    assert noisy.permutation is None and noisy.gradient < 1e-5 and "not told" in str(noisy)
    assert torch.equal(state, torch.get_rng_state())


def test_complex_parameters_have_right_gradients():
    class Filter(nn.Module):
        def __init__(self, dim, *, heads, dim_head, seq_len):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(seq_len // 2 + 1, dim, dtype=torch.complex64))

        def forward(self, x, rotary=None):
            return torch.fft.irfft(torch.fft.rfft(x, dim=1) * self.weight, n=x.shape[1], dim=1)

    found = check_mixer(Filter)
    assert found.gradient < 1e-5 and found.reach == 1 and found.idle == ()


class Constants(Interface):
    def forward(self, x, rotary=None):
        return torch.tril(torch.ones(x.shape[1], x.shape[1])) @ x


class Divided(Interface):
    def forward(self, x, rotary=None):
        return self.map(x) / (x - x)


class Cut(Interface):
    def forward(self, x, rotary=None):
        return self.map(x).detach()


@pytest.mark.parametrize(("mixer", "error", "words"), [
    (Constants, TypeError, r"Constants cannot mix float64 tokens.*\.to\(x\)"),
    (Divided, ValueError, "Divided turned ordinary tokens into NaN"),
    (Cut, ValueError, "Cut's output depends on nothing")])
def test_what_cannot_be_looked_over_is_said(mixer, error, words):
    with pytest.raises(error, match=words):
        check_mixer(mixer)


def test_a_mixer_that_leaves_its_tokens_alone_and_one_with_frozen_weights_are_looked_over():
    class Nothing(Interface):
        def forward(self, x, rotary=None):
            return x

    class Frozen(Mean):
        def __init__(self, dim, **shape):
            super().__init__(dim, **shape)
            self.map.requires_grad_(False)

    assert "grows like N^0.0" in str(check_mixer(Nothing)) and check_mixer(Frozen).reach == 1


def test_it_makes_no_difference_which_picture_of_a_batch_the_others_see():
    class OfTheFirst(Interface):
        def forward(self, x, rotary=None):
            return self.map(x - x[0].mean(0))

    assert check_mixer(OfTheFirst).neighbours > 1e-3 and "no: what shares the batch" in str(check_mixer(OfTheFirst))
