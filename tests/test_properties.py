"""Whatever is passed for an argument of the package: it works, and gives what a reference gives, or a ValueError or
TypeError names the argument and its value. VIX_CASES=10 tries ten times as many cases."""
from __future__ import annotations

import functools

import torch
from cases import Refused, answer, cases, changed, odd
from hypothesis import strategies as st
from torch import nn

import vixlib as vix
from vixlib.embeddings import EMBEDDINGS
from vixlib.mixers import MIXERS
from vixlib.positions import POSITIONS

TINY = {"image_size": 8, "patch_size": 2, "dim": 8, "depth": 1, "heads": 2, "dim_head": 4, "mlp_dim": 8,
        "num_classes": 3, "channels": 3, "num_landmarks": 4, "rank": 4}
NAMES = [name for name in vix.names() if name != "ResNet18"]  # too large for hundreds of cases; it has its own below
SMALL = st.integers(1, 12)
FLAG = odd(False, True)
OPTIONS = {
    **dict.fromkeys(("dim", "depth", "heads", "dim_head", "mlp_dim", "num_classes", "channels", "num_landmarks", "rank",
                     "num_features", "iterations", "expansion"), odd(SMALL)),
    "image_size": odd(SMALL, st.tuples(SMALL, SMALL)), "patch_size": odd(1, 2, 4, 3, st.tuples(SMALL, SMALL)),
    "depths": odd((1,), (1, 2), (0,), ("1",)), "conv_kernel": odd(1, 3, 4), "bias_grid": odd((2, 2)),
    **dict.fromkeys(("dropout", "emb_dropout", "epsilon", "position_std"), odd(0.1, 0.9, 1.0)),
    "rope_base": odd(10, 100.0), "conv_init": odd("he"),
    "pool": odd("cls", "mean", "sequence"), "position": odd(*POSITIONS), "mixer": odd(*MIXERS), "kernel": odd("relu"),
    "embedding": odd(*EMBEDDINGS), "projection": odd("linear", "conv", "separable"), "padding": odd("front"),
    "activation": odd("relu", "gelu", "hardswish"), "normalisation": odd("batch"), "feature_map": odd("elu"),
    "widths": odd((0.5, 1), (0.25, 0.5, 1), (0.3, 1), (float("nan"), 1), ("1",), (1, 0)),
    **dict.fromkeys(("fused", "qkv_bias", "out_norm", "shared_head", "shared_kv", "attention_bias"), FLAG),
    "config": odd("paper"), "seed": odd(3), "checkpointing": FLAG, "no_such_option": odd(1)}


def pictures(batch: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def check_classifier(model: nn.Module) -> None:
    """Finite scores, and the same for a picture alone as among others."""
    images = pictures(2, model.channels, *model.image_size)
    with torch.no_grad():
        scores = model.eval()(images)
        alone = torch.cat([model(image[None]) for image in images])
    assert scores.shape == (2, model.num_classes) and scores.isfinite().all()
    assert torch.allclose(scores, alone, atol=1e-4)


@cases(700, name=st.sampled_from(NAMES), options=changed({}, 3, **OPTIONS))
def test_build_makes_a_classifier_or_names_the_option(name, options):
    usual = vix.applicable(name, TINY)
    if "depths" in options:
        usual.pop("depth", None)
    given = {**usual, **options}
    defaults = {"rank=64": "exceeds", "num_landmarks=64": "exceeds"}  # of mixers chosen without their option
    model = answer(lambda: vix.build(name, **given), {"name": name, **given, **defaults})
    if not isinstance(model, Refused):
        check_classifier(model)


@cases(120, cls=st.sampled_from([vix.ViT, vix.ViP, vix.ViL, vix.ViN, vix.FNet, vix.ViX]),
       options=changed({}, 2, **{name: OPTIONS[name] for name in ("image_size", "patch_size", "num_classes", "dim",
                                                                  "depth", "heads", "mlp_dim", "pool", "channels",
                                                                  "dropout", "emb_dropout", "dim_head")}))
def test_drop_in_classes_do_as_build_does(cls, options):
    own = {vix.ViN: {"num_landmarks": 2}, vix.ViL: {"rank": 2}}.get(cls, {})
    given = {**{name: TINY[name] for name in ("image_size", "patch_size", "dim", "depth", "heads", "dim_head",
                                              "mlp_dim")}, **own, **options}
    model = answer(lambda: cls(**given), given)
    if not isinstance(model, Refused):
        check_classifier(model)


@functools.cache
def tiny(name: str) -> nn.Module:
    return vix.build(name, seed=0, **vix.applicable(name, TINY))


SHAPES = odd((2, 3, 8, 8), (1, 3, 8, 8), (3, 3, 8, 8), (1, 3, 8, 12), (0, 3, 8, 8), (2, 1, 8, 8), (3, 8, 8), (8, 8),
             (2, 3, 8), (2, 3, 8, 8, 1), (2, 3, 0, 8), (2, 3, 7, 8), (2, 8, 8, 3), (2, 3, 16, 16))
LAYOUTS = {"contiguous": lambda x: x, "channels last": lambda x: x.to(memory_format=torch.channels_last),
           "every second pixel": lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., ::2, ::2],
           "turned": lambda x: x.mT.contiguous().mT, "as read": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(
               0, 3, 1, 2), "one picture, expanded": lambda x: x[:1].expand(x.shape)}
CONTENTS = {"normal": lambda x: x, "black": torch.zeros_like, "white": torch.ones_like,
            "unscaled": lambda x: 127.5 * (x + 1), "huge": lambda x: 1e6 * x, "tiny": lambda x: 1e-30 * x}


@cases(400, name=st.sampled_from(NAMES), shape=SHAPES, content=st.sampled_from(sorted(CONTENTS)),
       layout=st.sampled_from(sorted(LAYOUTS)), training=st.booleans(),
       dtype=st.sampled_from([torch.float32] * 4 + [torch.float64, torch.float16, torch.uint8, torch.bool]))
def test_images_of_any_kind_give_what_plain_ones_give_or_are_refused(name, shape, content, layout, training, dtype):
    model = tiny(name).train(training)
    if not isinstance(shape, tuple) or len(shape) < 2:
        assert isinstance(answer(lambda: model(shape), {"images": shape}), Refused)
        return
    plain = CONTENTS[content](torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    images = (LAYOUTS[layout](plain) if plain.ndim == 4 and plain.numel() else plain).to(dtype)
    torch.manual_seed(0)  # dropout
    # Where a picture is of another size, the error may be of what came of it: the tokens.
    told = {"images": dtype, "image size": shape[-2:], "images has shape": shape,
            "the image gives": f"{shape[-2] // 2}x", "x has": (shape[-2] * shape[-1]) // 4, "patch_size": 2}
    scores = answer(lambda: model(images), told)
    fits = len(shape) == 4 and shape[1] == 3 and 0 not in shape and dtype == torch.float32
    if isinstance(scores, Refused):
        assert not fits or shape[-2:] != (8, 8), scores
        return
    assert fits and scores.shape == (shape[0], 3) and scores.isfinite().all()
    torch.manual_seed(0)
    assert torch.allclose(scores, model(images.contiguous()), rtol=1e-3, atol=1e-3)


@cases(150, name=st.sampled_from(NAMES), batch=st.integers(1, 4), place=st.integers(0, 3),
       value=st.sampled_from([float("nan"), float("inf"), -float("inf")]), everywhere=st.booleans())
def test_a_broken_picture_has_no_scores_and_spoils_no_other(name, batch, place, value, everywhere):
    model, images = tiny(name).eval(), pictures(batch, 3, 8, 8)
    broken, place = images.clone(), place % batch
    broken[place, :, slice(None) if everywhere else 3, 3] = value
    with torch.no_grad():
        scores, wanted = model(broken), model(images)
    others = [i for i in range(batch) if i != place]
    assert torch.allclose(scores[others], wanted[others], atol=1e-5)
    assert not scores[place].isfinite().any()


TOKENS = {"dim": 8, "heads": 2, "dim_head": 4, "seq_len": 16}


@cases(250, mixer=st.sampled_from(sorted(MIXERS)), options=changed(TOKENS, 2, **{k: odd(SMALL) for k in TOKENS}),
       shape=odd((2, 16, 8), (1, 16, 8), (2, 16, 7), (2, 5, 8), (2, 16), (0, 16, 8), (2, 0, 8)),
       dtype=st.sampled_from([torch.float32, torch.float32, torch.float64, torch.int64]))
def test_mixers_alone_mix_or_name_what_is_wrong(mixer, options, shape, dtype):
    own = {"nystrom": {"num_landmarks": 4}, "linformer": {"rank": 4}}.get(mixer, {})
    given = {**options, **own}
    if mixer == "fourier":  # takes them for the common signature only
        given = {**given, **TOKENS}
    made = answer(lambda: MIXERS[mixer](given["dim"], **{k: v for k, v in given.items() if k != "dim"}), given)
    if isinstance(made, Refused):
        return
    sized = isinstance(shape, tuple) and all(isinstance(n, int) for n in shape) and len(shape) > 1
    x = torch.ones(shape).to(dtype) if sized else shape
    told = {"x has shape": shape, "x": dtype if sized else shape, "x has": shape[1] if sized else shape,
            "num_landmarks": 4}
    out = answer(lambda: made.eval()(x), told)
    if not isinstance(out, Refused):
        assert out.shape == x.shape and out.isfinite().all()
        assert torch.allclose(out[:1], made(x[:1]), atol=1e-5)
