"""The notebooks' pairs are in step, executed, without errors, and keep the series' form."""
from __future__ import annotations

import json
import re
from ast import literal_eval
from pathlib import Path

import jupytext
import nbformat
import pytest

from vixlib.files import DATA
from vixlib.measure.durations import read_minutes, readable
from vixlib.report.comparison import compare
from vixlib.report.differences import rope_table
from vixlib.report.experiments import reasons_table
from vixlib.report.logs import first_epochs_table
from vixlib.report.memory import cost_table
from vixlib.report.records import read_records
from vixlib.report.verdicts import verdict_table

TABLES = {table.__name__: table for table in (compare, cost_table, first_epochs_table, reasons_table, rope_table,
                                              verdict_table)}
OTHERS = {"93.02"}  # of another repository, which 06 cites
ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
READMES = [ROOT / "README.md", ROOT / "data" / "README.md", ROOT / "notebooks" / "README.md"]


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
        checked = [cell for cell in pair(source).cells
                   if cell.cell_type == "code" and "NBVAL_CHECK_OUTPUT" in cell.source]
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

    def test_stored_tables_are_those_that_the_records_give(self, source):
        code = "\n".join(cell.source for cell in pair(source).cells if cell.cell_type == "code")
        shown = " ".join(stored_text(source).split())
        calls = re.findall(rf"\b({'|'.join(TABLES)})\((\d+|['\"]\w+['\"])?", code)
        tables = [TABLES[name](*map(literal_eval, filter(None, [table]))) for name, table in calls]
        assert tables
        for table in tables:
            assert table.caption in shown
            # A run of the notebook's own has a column behind these.
            for line in str(table).split("\n---")[1].splitlines()[1:]:
                assert " ".join(line.split()) in shown, f"make sync NB={source.stem}: {line}"

    def test_stored_time_is_the_measured_one(self, source):
        measured = [row for row in read_minutes() if row["notebook"] == source.stem and row["profile"] == "smoke"]
        said = re.search(r"recorded: (.*?) on (.*?), where", " ".join(stored_text(source).split()))
        assert said.groups() in {(readable(row["seconds"]), row["device"]) for row in measured}


@pytest.mark.parametrize("source", [*NOTEBOOKS, *READMES], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_accuracies_in_prose_are_printed_logged_or_recorded(source):
    text = source.read_text()
    if source.suffix == ".py":
        text = "\n".join(part for part in text.split("\n# %%") if part.startswith(" [markdown]"))
    printed = [json.loads((DATA / name).read_text()) for name in ("paper_tables.json", "authors_logs.json")]
    assert not set(re.findall(r"(\d+\.\d\d) ?%", text)) - accuracies([*printed, *read_records()]) - OTHERS


def stored_text(source: Path) -> str:
    """All text that the executed notebook shows."""
    outputs = [output for cell in pair(source).cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def accuracies(content: object, name: str = "") -> set[str]:
    """Every accuracy in `content` of a JSON file, with two decimals."""
    if isinstance(content, dict):
        return set().union(*(accuracies(value, key) for key, value in content.items()))
    if isinstance(content, list):
        return set().union(*(accuracies(value, name) for value in content))
    return {f"{content:.2f}"} if isinstance(content, (int, float)) and name.endswith(("top1", "top5")) else set()


def test_the_setup_cell_is_the_same_everywhere():
    def setup(source):
        return next(cell.source for cell in pair(source).cells if cell.cell_type == "code")

    assert len({setup(source) for source in NOTEBOOKS}) == 1
