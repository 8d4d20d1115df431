"""The notebooks' pairs are in step, executed, without errors, and keep the series' form."""
from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.py"))


def pair(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_there_are_notebooks_and_no_orphans():
    executed = {path.stem for path in NOTEBOOKS[0].parent.glob("*.ipynb")}
    assert {"01_vit", "02_linear_attention"} <= {path.stem for path in NOTEBOOKS}
    assert executed == {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_pair_is_in_step(self, source):
        # Which jupytext wrote it says nothing about the cells.
        written, stored = (re.sub(r"jupytext_version: .*", "", text)
                           for text in (jupytext.writes(pair(source), fmt="py:percent"), source.read_text()))
        assert written == stored, f"make sync NB={source.stem}"

    def test_every_cell_ran_in_order_without_error_and_figures_are_stored(self, source):
        cells = [cell for cell in pair(source).cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3

    def test_checked_cells_have_the_output_they_are_checked_against(self, source):
        checked = [cell for cell in pair(source).cells if "NBVAL_CHECK_OUTPUT" in cell.source]
        assert checked and all(cell.outputs and "assert" in cell.source for cell in checked)

    def test_it_opens_in_colab_and_kaggle_and_has_exercises(self, source):
        cells = pair(source).cells
        first = cells[0].source
        assert f"/blob/main/notebooks/{source.stem}.ipynb" in first
        assert "colab.research.google.com/github/" in first and "kaggle.com/kernels/welcome?src=" in first
        assert any("<details>" in cell.source for cell in cells if cell.cell_type == "markdown")

    def test_nothing_personal_or_noisy_is_stored(self, source):
        text = source.with_suffix(".ipynb").read_text()
        assert not re.search(r"(/root/|/home/|/work/|/tmp/)", text), "a path of the machine it ran on"
        outputs = [output for cell in pair(source).cells for output in cell.get("outputs", [])]
        assert not [output.text for output in outputs if output.get("name") == "stderr"], "warnings or bars"
        assert len(text) < 3_000_000


def test_the_setup_cell_is_the_same_everywhere():
    def setup(source):
        return next(cell.source for cell in pair(source).cells if cell.cell_type == "code")

    assert len({setup(source) for source in NOTEBOOKS}) == 1
