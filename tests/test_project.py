"""What the project says of itself agrees: README with the records, environment.yml with pyproject.toml."""
from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
from graphlib import TopologicalSorter
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


def test_files_stay_short():
    for path in (ROOT / "vixlib").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


def imported(path: Path) -> set[str]:
    """The modules of vixlib that a file of it imports anywhere, within functions too: "models.zoo"."""
    here, found = path.relative_to(ROOT / "vixlib").with_suffix("").parts, set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[:len(here) - node.level], *(node.module or "").split(".")]
            for name in node.names:
                whole = [part for part in (*base, name.name) if part]
                found.add(".".join(whole if (ROOT / "vixlib" / Path(*whole)).with_suffix(".py").exists() else
                                   [part for part in base if part]))
    return found


def test_imports_run_one_way():
    graph = {".".join(path.relative_to(ROOT / "vixlib").with_suffix("").parts): imported(path)
             for path in (ROOT / "vixlib").rglob("*.py")}
    packages = {module.split(".")[0] for module in graph if "." in module}
    for package in packages:  # importing a part of a package imports what its __init__ does
        graph[package] = graph.pop(f"{package}.__init__")
    assert {"errors", "models.vix"} <= graph["models.zoo"] and "data.shapes" in graph["data.loading"]
    tuple(TopologicalSorter(graph).static_order())  # a CycleError names the circle
    groups = {module.split(".")[0]: set() for module in graph}
    for module, others in graph.items():
        groups[module.split(".")[0]] |= {other.split(".")[0] for other in others} - {module.split(".")[0]}
    tuple(TopologicalSorter(groups).static_order())
    levels = [("precision", "errors", "lean"), ("mixers", "positions", "embeddings"), ("models",),
              ("device", "kernels", "files", "provenance", "table", "data", "measure", "train"), ("profiles", "report"),
              ("reproduce", "figures")]
    assert packages == {name for level in levels for name in level} & packages
    below: set[str] = set()
    for level in levels:
        below |= set(level)
        for module in level:
            assert groups[module] <= below, module
