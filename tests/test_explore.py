"""Figures to drag: maps are what the mixers apply, memory is as predicted, controls call the function."""
from __future__ import annotations

import json

import matplotlib.pyplot
import pytest
import torch

import vixlib as vix
from vixlib import mixers
from vixlib.figures import controls, explore
from vixlib.measure import lengths
from vixlib.measure.probe import imitated_rows, mixer_row

matplotlib.use("Agg")

SHAPE = {"heads": 2, "dim_head": 8, "seq_len": 21}
SMALL = {"image_size": 16, "patch_size": 4, "dim": 32, "depth": 2, "heads": 2, "dim_head": 8, "mlp_dim": 32}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("name, own", [
    ("softmax", {}), ("performer", {"num_features": 12}), ("performer", {"kernel": "relu"}),
    ("linformer", {"rank": 5}), ("linformer", {"rank": 5, "shared_projection": False, "shared_kv": False}),
    ("nystrom", {"num_landmarks": 5, "conv_kernel": 0}), ("nystrom", {"num_landmarks": 5, "conv_kernel": 0,
                                                                      "iterations": None})])
@pytest.mark.parametrize("turned", [False, True])
def test_a_row_times_the_values_is_what_the_mixer_computes(name, own, turned):
    torch.manual_seed(0)
    mixer = mixers.MIXERS[name](24, **SHAPE, **own).double()
    x, token = torch.randn(2, 21, 24, dtype=torch.float64), 6
    rotary = (lambda t: t.roll(1, -1) * torch.linspace(0.5, 1, 21).to(t)[:, None]) if turned else None
    row = mixer_row(mixer, x, token, rotary)
    with torch.no_grad():
        if name == "linformer":
            v = mixer.as_heads((mixer.to_v or mixer.to_k)(x)).expand(-1, 2, -1, -1)
            made = mixer.to_out(torch.einsum("bhn,bhnd->bhd", row, v).flatten(1))
        else:
            v = mixer.split(x, rotary)[2]
            made = mixer.join(torch.einsum("bhn,bhnd->bhd", row, v).unsqueeze(2))[:, 0]
        assert torch.allclose(made, mixer(x, rotary=rotary)[:, token], atol=1e-9)


def test_imitations_of_the_same_q_and_k():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 2, 21, 8, dtype=torch.float64)
    exact = imitated_rows(q, k, 3, features=4096, size=21)
    assert torch.allclose(exact["linformer, segment means"], exact["softmax"])  # with every token a mixture of its own
    assert (exact["performer"] - exact["softmax"]).abs().max() < 0.1
    few = imitated_rows(q, k, 3, features=8, size=4)
    for name in ("softmax", "performer"):
        assert (few[name] >= 0).all() and torch.allclose(few[name].sum(-1), torch.ones(1, 2, dtype=q.dtype))
    assert torch.equal(few["performer"], imitated_rows(q, k, 3, features=8, size=4)["performer"])


def test_a_mixer_without_a_matrix_is_refused():
    with pytest.raises(ValueError, match="FourierMixer has no attention matrix"):
        mixer_row(mixers.FourierMixer(24, **SHAPE), torch.randn(1, 21, 24), 0)


IMAGES = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def four(**options):
    return {name: vix.build(name, seed=0, **vix.applicable(name, {**SMALL, "rank": 4, "num_landmarks": 4, **options}))
            for name in ("ViT", "ViP", "ViL", "ViN")}


def test_looks_draws_every_choice():
    looks = explore.looks(four(), IMAGES)
    pictures = {controls.as_png(looks(**values)) for values in (
        {}, {"picture": 2}, {"layer": 2}, {"head": 2}, {"row": 0}, {"column": 0}, {"shown": explore.TRAINED})}
    assert len(pictures) == 7  # each control changes something
    with pytest.raises(ValueError, match="shown='both' is unknown"):
        looks(shown="both")


def test_a_model_without_cls_is_asked_about_the_same_patch(monkeypatch):
    models, drawn = {**four(), "ViP": four(pool="mean")["ViP"]}, []
    monkeypatch.setattr(explore, "_draw_looks", lambda image, maps, query, title: drawn.append(maps))
    explore.looks(models, IMAGES)(shown=explore.TRAINED, row=3, column=3)
    x, rotary = explore.mixer_inputs(models["ViP"], explore.normalised(IMAGES[:1]))[0]
    right = mixer_row(models["ViP"].blocks[0].mixer, x, 15, rotary)[0, 0].unflatten(0, (4, 4))
    assert torch.equal(drawn[0]["performer"], right)


def test_drawing_changes_no_model_that_is_being_trained():
    models = {**four(), "ViT": four(qkv_norm=True)["ViT"].train()}
    before = {name: value.clone() for name, value in models["ViT"].state_dict().items()}
    explore.looks(models, IMAGES)()
    assert all(torch.equal(before[name], value) for name, value in models["ViT"].state_dict().items())


@pytest.mark.parametrize(("values", "words"), [
    ({"layer": 0}, "layer=0 must be at least 1"), ({"layer": 9}, "layer=9 must be at most 2"),
    ({"head": 0}, "head=0 must be at least 1"), ({"head": 99}, "head=99 must be"),
    ({"row": -1}, "row=-1 must be at least 0"), ({"row": 100}, "row=100"), ({"column": -1}, "column=-1"),
    ({"column": 99}, "column=99"), ({"picture": 5}, "picture=5 must be at most 2"),
    ({"picture": True}, "picture=True must be an integer")])
def test_looks_names_a_place_that_is_not_there(values, words):
    with pytest.raises((TypeError, ValueError), match=words):
        explore.looks(four(), IMAGES)(**values)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: explore.looks({"ViT": four()["ViT"]}, IMAGES), r"models\['ViP'\]=NoneType must be a ViP"),
    (lambda: explore.looks({**four(), "ViL": four()["ViT"]}, IMAGES), r"models\['ViL'\]=ViX must be a ViL"),
    (lambda: explore.looks({**four(), "ViN": four(depth=3)["ViN"]}, IMAGES), r"models\['ViN'\] has another grid or de"),
    (lambda: explore.looks(four(), IMAGES.float()), "images are torch.float32"),
    (lambda: explore.kept_by_size(vix.build("LeViT", patch_size=8, depth=1), [2]), "vit=LeViT must be a ViX"),
    (lambda: explore.trade_off({}, {}, []), r"sizes=\[\] holds nothing"),
    (lambda: explore.trade_off({}, {}, [2]), r"errors\['performer'\]=None must hold 1 value"),
    (lambda: explore.trade_off(dict.fromkeys(explore.OPTIONS, [0.5]), {}, [2]), r"kept\['performer'\]=None must hold"),
])
def test_what_the_figures_cannot_be_made_of_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_bytes_grow_with_size_and_the_figure_says_what_was_chosen():
    vit = vix.build("ViT", **SMALL)
    kept = explore.kept_by_size(vit, [2, 8])
    assert all(kept[name][0] < kept[name][1] for name in explore.OPTIONS)
    assert kept["softmax"][0] < kept["softmax materialised"][0]
    figure = explore.trade_off(dict.fromkeys(explore.OPTIONS, [0.5, 0.25]), kept, [2, 8])(features=2)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert f"performer, m = 2: error 50.0%, {kept['performer'][0] / 1024:,.0f} KiB" in labels
    assert any(label.startswith("nystrom, m = 8: error 25.0%") for label in labels)
    with pytest.raises(ValueError, match="features=3 is unknown; use one of 2, 8"):
        explore.trade_off(dict.fromkeys(explore.OPTIONS, [0.5, 0.25]), kept, [2, 8])(features=3)


def test_the_fit_of_memory_holds_beyond_the_lengths_that_it_goes_through():
    peaks = json.loads(lengths.FILE.read_text())["peaks"]
    assert set(peaks) == set(lengths.WAYS)
    for way, needs in lengths.stored().items():
        for tokens, by_batch in peaks[way].items():
            for batch, true in by_batch.items():
                tolerance = 1e-6 if int(tokens) in lengths.FITTED else 0.1
                assert needs.bytes(int(tokens), int(batch)) == pytest.approx(true, rel=tolerance), (way, tokens)


def test_the_file_of_lengths_is_what_the_code_predicts_today():
    peaks = json.loads(lengths.FILE.read_text())["peaks"]
    assert lengths.predict("linformer", 257) == pytest.approx(peaks["linformer"]["257"], rel=0.02), \
        "python -m vixlib.measure.lengths"


def test_memory_by_patch_counts_tokens_and_names_a_patch_that_does_not_fit():
    figure = explore.memory_by_patch(4, 224, 64)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "3,137 tokens" in figure.axes[0].get_title()
    assert labels[0].startswith("softmax materialised") and labels[0].endswith("(too much)")
    with pytest.raises(ValueError, match="patch_size=5 does not divide image_side=32"):
        explore.memory_by_patch(5, 32)


def plot(side: int = 3, kind: str = "a", plain=None):
    figure = matplotlib.pyplot.figure(figsize=(1, 1))
    figure.text(0.1, 0.1, f"{side} {kind}")
    plot.calls.append((side, kind))
    return figure


plot.calls = []


def test_without_a_notebook_the_figure_of_the_defaults_is_drawn_once(capsys):
    plot.calls.clear()
    explore.interact(plot, side=range(5), kind=["a", "b"])
    assert plot.calls == [(3, "a")] and len(matplotlib.pyplot.get_fignums()) == 1
    assert "side, kind" in capsys.readouterr().out


def test_choices_are_checked():
    with pytest.raises(TypeError, match="size is no argument of plot"):
        explore.interact(plot, size=[1])
    with pytest.raises(ValueError, match=r"side=3, .* not among the choices \[1, 2\]"):
        explore.interact(plot, side=[1, 2])
    with pytest.raises(ValueError, match="side=.* nothing to choose"):
        explore.interact(plot, side=[])
    assert controls.starting_values(plot, {"kind": ["b", "a"]}) == {"kind": "a"}
    assert controls.starting_values(lambda free: None, {"free": [7, 8]}) == {"free": 7}


def test_with_widgets_every_control_redraws():
    widgets = pytest.importorskip("ipywidgets")
    choices = {"side": range(5), "kind": ["a", "b"]}
    plot.calls.clear()
    panel, picture = controls.build_panel(widgets, plot, choices, controls.starting_values(plot, choices))
    before, (side, kind) = picture.value, panel.children[0].children
    side.value, kind.value = 1, "b"
    assert plot.calls == [(3, "a"), (1, "a"), (1, "b")] and picture.value != before
    assert not matplotlib.pyplot.get_fignums()  # or they would appear a second time below the cell
