"""The solutions of all exercises run, with the names that their notebook has by then, at a tiny size."""
from __future__ import annotations

import re

import jupytext
import pytest
from cells import NOTEBOOKS, Names, cells_for, code_of, form_of, run_cells, write_pictures

TINY = {"profile": "smoke", "patch_size": 4, "dim": 16, "depth": 1, "heads": 2, "rank": 4, "num_landmarks": 4,
        "num_features": 8, "epochs": 2, "batch_size": 16}
SOLUTION = re.compile(r"^\*\*(\d)\. (.*?)\*\*.*?<details><summary>Solution</summary>(.*?)</details>", re.M | re.S)


def solutions(path) -> dict[str, str]:
    """Number and name of each exercise -> the code of its solution."""
    prose = "\n\n".join(cell.source for cell in jupytext.read(path).cells if cell.cell_type == "markdown")
    turn = prose[prose.index("Your turn\n"):]
    return {f"{number} {title}": "\n".join(re.findall(r"```python\n(.*?)```", body, re.S))
            for number, title, body in SOLUTION.findall(turn)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return str(write_pictures(tmp_path_factory.mktemp("pictures"), size=32, train=32, test=20))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_run(path, pictures, monkeypatch, capsys):
    for variable in ("VIX_PROFILE", "VIX_DATASET"):
        monkeypatch.delenv(variable, raising=False)
    found = solutions(path)
    assert 3 <= len(found) <= 4 and all(found.values()), list(found)
    values = {name: value for name, value in {**TINY, "dataset": pictures}.items() if name in form_of(path)}
    needs = set().union(*(Names.of(code).needs for code in found.values()))
    namespace = run_cells(cells_for(code_of(path), needs), values)
    for title, code in found.items():
        missing = Names.of(code).needs - set(namespace)
        assert not missing, f"exercise {title} uses {missing}, which the notebook does not define"
        capsys.readouterr()
        run_cells([code], {}, dict(namespace))
        assert capsys.readouterr().out.strip(), f"the solution of exercise {title} shows nothing"
