"""The series as web pages: pages.py [FOLDER] renders the stored notebooks, writes an index and checks every link.

Links between notebooks become links between pages. Whatever else a page links to inside the project (a README, a source
file) points to the repository's address. The pages need no network, but for the mathematics, which MathJax draws.
"""
from __future__ import annotations

import re
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
from nbconvert import HTMLExporter

sys.path.insert(0, str(Path(__file__).resolve().parent))

import publish  # noqa: E402

NO_TEXT = "No description has been provided for this image"  # what nbconvert says of every stored figure
ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, SITE = ROOT / "notebooks", ROOT / "build" / "site"

# Wide tables and long lines scroll inside their cell, pictures shrink with the window, text keeps a readable width.
STYLE = """<style>
main { max-width: 72rem; margin: 0 auto; }
.jp-OutputArea-output { overflow-x: auto; }
.jp-OutputArea-output pre { white-space: pre; }
.jp-RenderedImage img, .jp-RenderedHTMLCommon img { max-width: 100%; height: auto; }
.jp-MarkdownOutput pre, .jp-RenderedHTMLCommon pre, .highlight pre { overflow-x: auto; }
.jp-MarkdownOutput table { display: block; overflow-x: auto; }
nav.series { font: 0.95rem sans-serif; margin: 1rem; }
@media (max-width: 50rem) { .jp-InputPrompt, .jp-OutputPrompt { display: none; } body.jp-Notebook { padding: 0.5rem; } }
</style>"""
INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Vision X-formers</title><style>
body {{ font: 1rem/1.5 sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
li {{ margin: 1rem 0; }} a {{ color: #0072B2; }} p {{ margin: 0.2rem 0; }}
</style></head><body><h1>Vision X-formers</h1>
<p>Linear attention in vision, in six notebooks, each with its code and what it printed when it last ran.
MathJax draws the mathematics, and has to be fetched; all else works without a network.
<a href="https://github.com/{address}">The project</a>.</p>
<ol>
{entries}
</ol></body></html>
"""


def title_and_question(notebook: nbformat.NotebookNode) -> tuple[str, str]:
    """What a notebook is called and asks, from its first cell."""
    first = notebook.cells[0].source
    title = re.search(r"^# (.+)$", first, re.MULTILINE)
    question = re.search(r"^\*\*The question\.\*\* (.+)$", first, re.MULTILINE)
    if not title or not question:
        raise ValueError("a notebook begins with '# NN · title' and has a paragraph '**The question.** ...'")
    return title[1], re.sub(r"[*`]", "", re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", question[1]))


def page(source: Path, notebook: nbformat.NotebookNode, names: list[str], repository: str) -> str:
    """One notebook as a page with links to its neighbours; each figure's alternative text is its section's heading."""
    html, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": source.stem}})
    above = iter(_sections_of_figures(notebook))
    html = re.sub(f'alt="{NO_TEXT}"', lambda _: f'alt="figure in the section {escape(next(above, "?"))}"', html)
    html = re.sub(r'href="([^":#]+)(#[^"]*)?"', lambda found: f'href="{_target(found[1], names, repository)}'
                                                              f'{found[2] or ""}"', html)
    place = names.index(source.stem)
    links = ['<a href="index.html">all notebooks</a>']
    links += [f'<a href="{names[place - 1]}.html">← {names[place - 1]}</a>'] if place else []
    links += [f'<a href="{names[place + 1]}.html">{names[place + 1]} →</a>'] if place + 1 < len(names) else []
    nav = f'<nav class="series">{" · ".join(links)}</nav>'
    html = html.replace("</head>", STYLE + "</head>", 1)
    return re.sub(r"(<body[^>]*>)", rf"\1{nav}", html, count=1).replace("</body>", f"{nav}</body>", 1)


def _sections_of_figures(notebook: nbformat.NotebookNode) -> list[str]:
    """For every stored figure, the heading above it."""
    heading, found = "", []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
        found += [heading for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    return found


def _target(link: str, names: list[str], repository: str) -> str:
    """Where a relative link of a notebook leads to in the site."""
    stem = link.removesuffix(".ipynb")
    if stem in names:
        return f"{stem}.html"
    path = (NOTEBOOKS / unquote(link)).resolve()
    if link.endswith(".html") or not path.is_relative_to(ROOT) or not path.exists():
        return link  # the check of links judges it
    return f"https://github.com/{repository}/blob/main/{path.relative_to(ROOT)}"


class _Links(HTMLParser):
    """What a page links to, which pictures it shows, and which anchors it offers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.targets += [given[name] or "" for name in ("href", "src") if name in given]


def broken(folder: Path) -> list[str]:
    """Every link and picture of the pages in `folder` that leads nowhere, as "page: target".

    Other hosts are not asked; their addresses must be https. A picture must be stored in the page or in the folder.
    """
    pages = {path.resolve(): _Links(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    wrong = []
    for path, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme in ("https", "data", "mailto"):
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            offered = {"", *(pages[to].anchors if to in pages else ())}
            wanted = {parts.fragment, unquote(parts.fragment)}  # a browser tries an anchor as written first
            if parts.scheme or not target or not to.is_file() or not offered & wanted:
                wrong.append(f"{path.name}: {target or '(empty)'}")
    return wrong


def build(folder: Path = SITE, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Write the pages and the index into `folder`; returns them. ValueError names links that lead nowhere."""
    sources = sorted(notebooks.glob("[0-9]*.ipynb"))
    names, repository = [source.stem for source in sources], publish.address()
    folder.mkdir(parents=True, exist_ok=True)
    entries, pages = [], [folder / "index.html"]
    for source in sources:
        notebook = nbformat.read(source, as_version=4)
        title, question = title_and_question(notebook)
        entries.append(f'<li><a href="{source.stem}.html">{escape(title)}</a><p>{escape(question)}</p></li>')
        pages.append(folder / f"{source.stem}.html")
        pages[-1].write_text(page(source, notebook, names, repository))
    pages[0].write_text(INDEX.format(address=escape(repository), entries="\n".join(entries)))
    if wrong := broken(folder):
        raise ValueError("links that lead nowhere:\n  " + "\n  ".join(wrong))
    return pages


if __name__ == "__main__":
    try:
        written = build(*map(Path, sys.argv[1:2]))
    except ValueError as error:
        sys.exit(str(error))
    print(f"{len(written)} pages, no broken link or picture; open {written[0]}")
