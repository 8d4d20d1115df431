"""The repository's address is one constant, and `make publish` leaves no other."""
from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("publish", ROOT / ".ci" / "publish.py")
publish = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(publish)

NOT_OURS = {".git", ".venv", "build", "runs", "checkpoints", "__pycache__"}  # nor pictures and other packages' files
# Colab's badge, Kaggle's badge, a clone, a link: what a notebook or README says about where this project is.
SHAPES = (r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob", r"src=https://github\.com/([\w.-]+/[\w.-]+)/blob",
          r'REPOSITORY = \\?"https://github\.com/([\w.-]+/[\w.-]+?)\\?"', r"git clone https://github\.com/([\w.-]+/[\w.-]+)",
          r'Repository = "https://github\.com/([\w.-]+/[\w.-]+?)"')


def texts(root: Path) -> dict[Path, str]:
    """The files of a checkout that are text."""
    suffixes = {".py", ".md", ".ipynb", ".toml", ".yml", ".cff", ".json", ""}
    return {path: path.read_text(errors="ignore") for path in root.rglob("*")
            if path.suffix in suffixes and path.is_file() and not NOT_OURS & set(path.relative_to(root).parts)}


def _speaks_of_this_project(root: Path, path: Path) -> bool:
    """Not the program and the tests that handle addresses as such."""
    return path.name != "publish.py" and path.relative_to(root).parts[0] != "tests"


def addresses(root: Path) -> dict[Path, set[str]]:
    return {path: found for path, text in texts(root).items() if _speaks_of_this_project(root, path)
            if (found := {name for shape in SHAPES for name in re.findall(shape, text)})}


@pytest.fixture
def copy(tmp_path) -> Path:
    root = tmp_path / "copy"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".git", ".venv", "build", "cifar*", "*.egg-info", "runs",
                                                              "__pycache__", ".*_cache", "checkpoints"))
    return root


def test_every_address_is_the_one_in_pyproject():
    found = addresses(ROOT)
    assert set().union(*found.values()) == {publish.address()}, "make publish REPO=owner/name"
    assert len([path for path in found if path.parent.name == "notebooks" and path.suffix == ".py"]) >= 6
    for source in (ROOT / "notebooks").glob("[0-9]*.py"):
        assert source.read_text().count(publish.address()) == 3, "two badges and the setup cell"


def test_publishing_leaves_no_other_address_and_can_be_repeated(copy):
    before, original = texts(copy), publish.address(copy)
    for new in ("ada/first", "ada-love/first.2", "OWNER/REPOSITORY"):
        old, mentions = publish.address(copy), len(addresses(copy))
        done = subprocess.run(["make", "-s", "publish", f"REPO={new}"], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert set().union(*addresses(copy).values()) == {new} == {publish.address(copy)}
        assert len(addresses(copy)) == mentions and "pyproject.toml" in done.stdout
        left = [path for path, text in texts(copy).items() if _speaks_of_this_project(copy, path)
                and re.search(rf"{re.escape(old)}(?![\w.-])", text)]
        assert not left, f"{old} is still in {left}"
    publish.publish(original, copy)
    assert texts(copy) == before


@pytest.mark.parametrize("name", ["", "ada", "https://github.com/ada/first", "ada/first.git", "ada/fi rst", 'a/"'])
def test_what_is_no_repository_is_refused_and_changes_nothing(copy, name):
    before = texts(copy)
    with pytest.raises(ValueError, match="owner/name"):
        publish.publish(name, copy)
    assert texts(copy) == before


def test_only_whole_names_are_replaced(tmp_path):
    (tmp_path / "pyproject.toml").write_text('Repository = "https://github.com/a/b"\n')
    (tmp_path / "README.md").write_text("github.com/a/b/blob, github/a/b. github.com/a/bc github.com/a/b.js gitlab/a/b")
    publish.publish("c/d", tmp_path)
    assert (tmp_path / "README.md").read_text() == (
        "github.com/c/d/blob, github/c/d. github.com/a/bc github.com/a/b.js gitlab/a/b")
