"""Whatever the widgets of a form allow trains, or is refused at once by an error that names the field."""
from __future__ import annotations

import json
import random
import re

import pytest
from cells import cells_for, code_of, form_of, notebook, run_cells, write_pictures

DRAWS, PICTURE = 20, 8  # draws for both notebooks together; pixels a side
WANTED = {"02": "runs", "05": "runs"}  # what the cell with the training leaves
COSTLY = {"epochs": 1, "depth": 2}  # drawn as any other field, then cut: the code takes no other way for more of it


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return str(write_pictures(tmp_path_factory.mktemp("pictures"), PICTURE, train=16, test=10))


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch):
    for variable in ("VIX_PROFILE", "VIX_DATASET"):
        monkeypatch.delenv(variable, raising=False)


def choices(kind: str) -> list | None:
    """The values that a widget offers, None for free text, a number without bounds, or a folder."""
    if kind.startswith("["):
        return json.loads(re.match(r"\[.*?\]", kind)[0])
    bounds = {name: int(number) for name, number in re.findall(r"(min|max|step): ?(\d+)", kind)}
    return list(range(bounds["min"], bounds["max"] + 1, bounds["step"])) if "slider" in kind else None


def draw(form: dict[str, tuple[str, str]], chance: random.Random) -> dict:
    """A value for every field with bounds; half of the fields stay as they are."""
    values = {}
    for name, (_, kind) in form.items():
        offered = choices(kind)
        if offered and chance.random() < 0.5:
            few = name in ("rank", "num_landmarks") and chance.random() < 0.6  # or nearly every draw would be refused
            values[name] = chance.choice(offered[:4] if few else offered)
    return {name: min(value, COSTLY.get(name, value)) if name in COSTLY else value for name, value in values.items()}


def refusal(stem: str, values: dict) -> list[str]:
    """The fields that a draw is wrong in: a reduction to more mixtures or landmarks than there are tokens."""
    patch = values.get("patch_size") or {"paper": 1}.get(values.get("profile"), 4)
    tokens = (PICTURE // patch) ** 2 + (stem == "02")  # with CLS
    trains = {"02": {"rank", "num_landmarks"},
              "05": {"auto": {"num_landmarks"}, "nystrom": {"num_landmarks"}, "linformer": {"rank"},
                     "all": {"rank", "num_landmarks"}}.get(values.get("swap", "auto"), set())}[stem]
    return [name for name in sorted(trains) if values.get(name, 0) > tokens]


@pytest.mark.parametrize("number", range(DRAWS))
def test_a_random_form_trains_or_is_refused_by_name(number, pictures, tmp_path):
    chance, stem = random.Random(number), ("02", "05")[number % 2]
    path = notebook(stem)
    form = form_of(path)
    values = draw(form, chance) | {"dataset": pictures}
    if chance.random() < 0.3:
        values["checkpoints"] = str(tmp_path / "made later")
    values["epochs"] = max(1, values.get("epochs", 0))
    cells = cells_for(code_of(path), {WANTED[stem]})
    wrong = refusal(stem, values)
    if not wrong:
        namespace = run_cells(cells, values)
        runs = namespace["runs"]
        assert runs and all(len(run.history) == values["epochs"] for run in runs.values())
        built = next(iter(namespace["models"].values()))
        if values.get("patch_size"):
            assert len(runs) >= 2 and tuple(namespace["grid"]) == (PICTURE // values["patch_size"],) * 2
        if values.get("heads"):
            assert built.blocks[0].mixer.heads == values["heads"]
        if "checkpoints" in values:
            assert len(list((tmp_path / "made later").iterdir())) == len(runs)
    else:
        with pytest.raises(ValueError, match="|".join(f"{name}={values[name]} exceeds" for name in wrong)):
            run_cells(cells, values)


@pytest.mark.parametrize("stem", ["01", "02", "03", "04", "05", "06"])
def test_every_field_has_a_widget_that_offers_its_own_default(stem):
    form = form_of(notebook(stem))
    assert {"profile", "dataset", "epochs", "batch_size", "seed"} <= set(form)
    for name, (value, kind) in form.items():
        offered = choices(kind)
        if offered is None:
            assert re.fullmatch(r'{type:"(string|integer|number)"}', kind), (name, kind)
        else:
            assert json.loads(value) in offered, (name, value)


@pytest.mark.parametrize("field, value, message", [
    ("dataset", "no such folder", "no such folder"), ("profile", "fast", "profile='fast'"),
    ("epochs", -1, "epochs=-1"), ("batch_size", -8, "batch_size=-8"), ("seed", -1, "seed=-1"), ("dim", -16, "dim=-16"),
    ("depth", -1, "depth=-1"), ("heads", -2, "heads=-2"), ("rank", -4, "rank=-4"), ("epochs", 1.5, "epochs=1.5"),
    ("num_landmarks", -4, "num_landmarks=-4"), ("num_features", -8, "num_features=-8"),
    ("patch_size", 3, "patch_size=3"),
    ("patch_size", 32, "patch_size=32"), ("patch_size", -4, "patch_size height=-4"), ("dim", 31.5, "dim=31.5")])
def test_what_no_widget_allows_is_refused_before_anything_trains(field, value, message, pictures):
    path = notebook("02")
    cells = cells_for(code_of(path), {"models"})
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        run_cells(cells, {"dataset": pictures, field: value})
