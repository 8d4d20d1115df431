"""A table of text: plain in a terminal, HTML in a notebook."""
from __future__ import annotations

from dataclasses import dataclass
from html import escape

# Numbers stay on one line, and a table that is wider than its window scrolls; words and headings may break.
STYLE = {"left": "text-align:left", "th": "text-align:right", "td": "text-align:right;white-space:nowrap"}


@dataclass(frozen=True, repr=False)
class Table:
    """Text cells with a caption and notes; print() gives plain text, a notebook shows HTML.

    left: the columns that hold words; the others are flush right, as numbers are.
    """

    caption: str
    header: list[str]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()
    left: tuple[int, ...] = (0,)

    def __str__(self) -> str:
        lines = [[cell.split("\n") for cell in line] for line in (self.header, *self.rows)]
        widths = [max(len(part) for line in lines for part in line[i]) for i in range(len(self.header))]

        def text(line: list[list[str]]) -> str:
            height = max(map(len, line))
            padded = [[""] * (height - len(parts)) + parts for parts in line]
            return "\n".join("  ".join(f"{parts[y]:<{w}}" if i in self.left else f"{parts[y]:>{w}}"
                                       for i, (parts, w) in enumerate(zip(padded, widths, strict=True)))
                             for y in range(height))

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([self.caption, text(lines[0]), rule, *map(text, lines[1:]), *self.notes])

    __repr__ = __str__  # as a cell's value outside of a notebook

    def _repr_html_(self) -> str:
        def cells(tag: str, line: list[str]) -> str:
            return "".join(f'<{tag} style="{STYLE["left" if i in self.left else tag]};padding:0.2em 0.6em">'
                           f"{escape(cell).replace(chr(10), '<br>')}</{tag}>" for i, cell in enumerate(line))

        rows = "".join(f"<tr>{cells('td', row)}</tr>" for row in self.rows)
        notes = "<br>".join(map(escape, self.notes))
        return ('<div style="overflow-x:auto"><table>'
                f'<caption style="text-align:left;font-weight:bold">{escape(self.caption)}</caption>'
                f"<thead><tr>{cells('th', self.header)}</tr></thead><tbody>{rows}</tbody></table>"
                f"<small>{notes}</small></div>")
