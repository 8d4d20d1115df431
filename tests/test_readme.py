"""README keeps its word: the mixer that it adds works, its picture is current, its links lead somewhere."""
from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
sys.path.insert(0, str(ROOT / ".ci"))

import picture  # noqa: E402

CHECK = """
import torch, vixlib as vix
model = vix.build("ViAvg", seed=0, patch_size=8, depth=2)
x = torch.randn(2, model.seq_len, 128, requires_grad=True)
mixer = model.blocks[0].mixer
order = torch.randperm(model.seq_len)
torch.testing.assert_close(mixer(x[:, order]), mixer(x)[:, order])
torch.testing.assert_close(mixer(x), mixer(x).roll(1, dims=1))
mixer(x)[:, 0].sum().backward()
assert (x.grad != 0).any(-1).all()
run = vix.fit(model, vix.load("shapes", train=640, test=200), vix.TrainConfig(epochs=2, batch_size=32, lr=2e-3))
assert run.model == "ViAvg" and run.history[-1]["loss"] < run.history[0]["loss"]
assert vix.saved_bytes_per_image(model) > 0 and "ViAvg" in vix.names()
hybrid = vix.build("CCT", mixer=type(mixer), patch_size=8)
assert hybrid(torch.randn(2, 3, 32, 32)).shape == (2, 10)
try:
    vix.build("ViAvg", position="rope")
except ValueError as error:
    assert "rotates" in str(error)
else:
    raise AssertionError("a mixer without queries took rotary positions")
"""


def test_the_mixer_of_the_diff_works(tmp_path):
    shutil.copytree(ROOT / "vixlib", tmp_path / "vixlib", ignore=shutil.ignore_patterns("__pycache__"))
    diff, = re.findall(r"```diff\n(.*?)```", README, re.DOTALL)
    added = [line[1:] for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert 10 <= len([line for line in added if line.strip()]) <= 12
    applied = subprocess.run(["git", "apply", "-"], input=diff, cwd=tmp_path, text=True, capture_output=True)
    assert applied.returncode == 0, applied.stderr
    done = subprocess.run([sys.executable, "-c", CHECK], cwd=tmp_path, text=True, capture_output=True,
                          env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1",
                               "HOME": str(tmp_path), "TQDM_DISABLE": "1"})
    assert done.returncode == 0, done.stderr


def test_the_picture_shows_the_present_record(tmp_path):
    assert picture.is_current(), "make readme"
    assert picture.is_current(picture.draw(tmp_path / "drawn.png"))
    assert not picture.is_current(tmp_path / "none.png")


def anchors(text: str) -> set[str]:
    """The addresses of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "data/README.md", "notebooks/README.md"])
def test_links_lead_to_files_and_headings(name):
    path = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL))
    assert links
    for link in links:
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), f"{name}: {link}"
            assert not anchor or anchor in anchors(target.read_text()), f"{name}: {link}"


def test_the_front_stays_short_and_says_how_to_begin():
    front = README[:README.index("## The headline")]
    assert len(README.splitlines()) < 200 and front.count("make ") >= 3
    for word in ("Colab", "Kaggle", "Your own machine", "Two commands"):
        assert word in front
    assert README.index("scaling.png") < README.index("## Open it")
