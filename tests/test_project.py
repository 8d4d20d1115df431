"""What the project says of itself agrees: README with the records, environment.yml with pyproject.toml."""
from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_readme_shows_the_records():
    spec = importlib.util.spec_from_file_location("readme", ROOT / ".ci" / "readme.py")
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    for path in readme.PARTS:
        assert readme.filled(path) == path.read_text(), "make readme"


def test_conda_environment_has_the_same_ranges():
    ranges = r'([a-z]+)(>=[0-9.]+)'
    wanted = dict(re.findall(rf'"{ranges}"', (ROOT / "pyproject.toml").read_text()))
    wanted["pytorch"] = wanted.pop("torch")  # conda's name for it
    del wanted["setuptools"]
    given = dict(re.findall(rf"- {ranges}\n", (ROOT / "environment.yml").read_text()))
    assert given.pop("python") == re.search(r'requires-python = "(.*)"', (ROOT / "pyproject.toml").read_text())[1]
    assert given == wanted


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
