"""The packages that `make test-oldest` installs are the lowest that pyproject.toml allows."""
from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ci"))

import versions  # noqa: E402

PYPROJECT = (ROOT / "pyproject.toml").read_text()


def test_the_lowest_of_every_lower_bound_is_found():
    assert versions.lowest('a = ["one>=2.6", "two-b>=0.9"]\nb = ["two-b>=0.10", "three==1.2"]') \
        == {"one": "2.6", "two-b": "0.10"}
    bounded = {package for line in PYPROJECT.splitlines() for package in re.findall(r'"([\w-]+)>=', line)}
    assert set(versions.lowest(PYPROJECT)) == bounded >= {"torch", "torchvision", "einops", "matplotlib", "pytest"}


def test_every_file_is_python_as_the_oldest_supported_reads_it():
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', PYPROJECT)[1]
    for path in (*ROOT.glob("vixlib/**/*.py"), *ROOT.glob("notebooks/*.py")):
        ast.parse(path.read_text(), filename=str(path), feature_version=(3, int(oldest)))
