"""The pages of `make site`: notebooks link to each other as pages, and no link or picture leads nowhere."""
from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("pages", ROOT / ".ci" / "pages.py")
series_pages = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(series_pages)

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def series(folder: Path, *texts: str) -> Path:
    """Small notebooks 01_a, 02_a, ... with a title, a question, one of `texts` and a stored figure each."""
    folder.mkdir()
    for number, text in enumerate(texts, start=1):
        figure = new_code_cell("1", outputs=[new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"})])
        head = new_markdown_cell(f"# 0{number} · *A* title\n\n**The question.** Is `x` [*so*](https://a.org)?\n\nMore.")
        nbformat.write(new_notebook(cells=[head, new_markdown_cell(text), figure]), folder / f"0{number}_a.ipynb")
    return folder


def test_links_between_notebooks_become_links_between_pages(tmp_path):
    notebooks = series(tmp_path / "in", "## 1 · Über\n\n[next](02_a.ipynb), [part](02_a.ipynb#2-%C2%B7-Two)",
                       "## 2 · Two\n\n[back](01_a.ipynb), [here](#2-%C2%B7-Two), [far](https://arxiv.org/abs/2107.02239)")
    pages = series_pages.build(tmp_path / "out", notebooks)
    first, second = (path.read_text() for path in pages[1:])
    assert 'href="02_a.html"' in first and 'href="02_a.html#2-%C2%B7-Two"' in first and ".ipynb" not in first
    assert second.count('href="01_a.html"') == 3  # the text's, and above and below the page
    assert f"data:image/png;base64,{PNG}" in first.replace("\n", "")
    index = pages[0].read_text()
    assert index.count("<li>") == 2 and '<a href="01_a.html">01 · *A* title</a>' in index and "Is x so?" in index


@pytest.mark.parametrize("text, target", [
    ("[gone](03_none.ipynb)", "03_none.ipynb"), ("![gone](figure.png)", "figure.png"),
    ("[gone](02_a.ipynb#nowhere)", "02_a.html#nowhere"), ("[gone](#nowhere)", "#nowhere"),
    ("[plain](http://example.org)", "http://example.org"), ("[gone](../../outside.md)", "../../outside.md"),
    ("<img src=''>", "(empty)")])
def test_what_leads_nowhere_is_named(tmp_path, text, target):
    notebooks = series(tmp_path / "in", text, "nothing")
    with pytest.raises(ValueError, match="lead nowhere") as error:
        series_pages.build(tmp_path / "out", notebooks)
    assert str(error.value).endswith(f"01_a.html: {target}")


def test_files_of_the_project_lead_to_its_address(tmp_path):
    notebooks = series(tmp_path / "in", "[source](../vixlib/device.py)")
    text = series_pages.build(tmp_path / "out", notebooks)[1].read_text()
    assert f'href="https://github.com/{series_pages.publish.address()}/blob/main/vixlib/device.py"' in text


def test_a_notebook_without_title_or_question_is_refused():
    with pytest.raises(ValueError, match="The question"):
        series_pages.title_and_question(new_notebook(cells=[new_markdown_cell("# 01 · A title")]))


def test_the_whole_series_has_no_broken_link(tmp_path):
    pages = series_pages.build(tmp_path)
    sources = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert [path.stem for path in pages[1:]] == [source.stem for source in sources]
    for path, source in zip(pages[1:], sources, strict=True):
        figures = sum("image/png" in output.get("data", {}) for cell in nbformat.read(source, as_version=4).cells
                      for output in cell.get("outputs", []))
        text = path.read_text()
        assert len(re.findall(r'<img [^>]*src="data:image/png', text)) == figures > 0
        assert text.count('alt="figure in the section ') == figures
