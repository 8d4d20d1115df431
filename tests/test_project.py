"""What the project says of itself agrees: README with the records, environment.yml with pyproject.toml."""
from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_readme_shows_the_records():
    spec = importlib.util.spec_from_file_location("readme", ROOT / ".ci" / "readme.py")
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    for path in readme.PARTS:
        assert readme.filled(path) == path.read_text(), "make readme"


def ranges(name: str, pyproject: str) -> dict[str, str]:
    """The packages of one list in pyproject.toml with their ranges."""
    found = re.search(rf"^{name} = \[(.*?)\]", pyproject, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r'"([\w-]+)([^"]*)"', found[1]))


def test_conda_environment_has_the_same_packages_and_ranges():
    pyproject = (ROOT / "pyproject.toml").read_text()
    wanted = {**ranges("dependencies", pyproject), **ranges("notebooks", pyproject), **ranges("dev", pyproject)}
    wanted["pytorch"] = wanted.pop("torch")  # conda's name for it
    wanted["python"] = re.search(r'requires-python = "(.*)"', pyproject)[1]
    listed = re.findall(r"^  - ([\w-]+)(.*)$", (ROOT / "environment.yml").read_text(), re.MULTILINE)
    given = {name: range_ for name, range_ in listed if name not in ("conda-forge", "pip")}
    assert given == wanted and len(given) == len([name for name, _ in listed]) - 3  # conda-forge, pip and its "pip:"


def test_the_browsers_packages_are_asked_for_by_nothing_else():
    pyproject = (ROOT / "pyproject.toml").read_text()
    lab = ranges("lab", pyproject)
    assert {"jupyterlab", "playwright"} <= set(lab)
    assert not set(lab) & {"jupyterlab", "playwright"} & {*ranges("notebooks", pyproject), *ranges("dev", pyproject)}


CONDA = next(filter(None, map(shutil.which, ("mamba", "conda"))), None)


@pytest.mark.skipif(CONDA is None, reason="no conda at hand")
def test_conda_solves_the_environment():
    done = subprocess.run([CONDA, "env", "create", "--dry-run", "--name", "vix-solved", "--file",
                           str(ROOT / "environment.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_stay_short_and_imports_run_one_way():
    order = [{"errors", "shapes"}, {"mixers", "positions", "embeddings"}, {"models"}]
    level = {name: depth for depth, names in enumerate(order) for name in names}
    for path in (ROOT / "vixlib").rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        own = path.relative_to(ROOT / "vixlib").parts[0].removesuffix(".py")
        if own in ("mixers", "positions", "embeddings", "models"):
            for name in re.findall(r"^from \.\.(\w+)|^from \.(\w+)", text, re.MULTILINE):
                module = name[0] or (name[1] if len(path.relative_to(ROOT / "vixlib").parts) == 1 else own)
                assert level.get(module, 99) <= level[own], f"{path} imports {module}"
