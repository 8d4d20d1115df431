"""Write the repository's address everywhere: publish.py OWNER/NAME. The present one is read from pyproject.toml."""
from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What mentions the address: README files, badges and setup cells of both halves of the notebooks, the package's page.
MENTIONED_IN = ("*.md", "*.toml", "data/*.md", "notebooks/*.md", "notebooks/*.py", "notebooks/*.ipynb")
LEGAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9_.-]+(?<!\.git)")


def address(root: Path = ROOT) -> str:
    """The repository as "owner/name", from the one line in pyproject.toml that holds it."""
    line = r'^Repository = "https://github\.com/([^"]+)"$'
    found = re.search(line, (root / "pyproject.toml").read_text(), re.MULTILINE)
    if not found:
        raise ValueError('pyproject.toml lacks the line Repository = "https://github.com/OWNER/REPOSITORY"')
    return found[1]


def publish(new: str, root: Path = ROOT) -> list[Path]:
    """Replace the present address by `new` ("owner/name") in every file that mentions it; returns those files."""
    if not LEGAL.fullmatch(new):
        raise ValueError(f"REPO={new!r} is no repository; use owner/name, as in make publish REPO=ada/vision-xformers")
    # Colab's addresses say github/owner/name, all others github.com/owner/name.
    old = re.compile(rf"(?<=github)(\.com)?/{re.escape(address(root))}(?![\w-]|\.\w)")
    changed = []
    for path in sorted(path for pattern in MENTIONED_IN for path in root.glob(pattern)):
        text = path.read_text()
        if (replaced := old.sub(lambda found: f"{found[1] or ''}/{new}", text)) != text:
            path.write_text(replaced)
            changed.append(path)
    return changed


if __name__ == "__main__":
    try:
        for path in publish(sys.argv[1] if len(sys.argv) == 2 else ""):
            print(path.relative_to(ROOT))
    except ValueError as error:
        sys.exit(str(error))
