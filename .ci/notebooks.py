"""Keep the notebooks' pairs in step, run them, time them: sync | run, for one notebook or "all"."""
from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, BUILD = ROOT / "notebooks", ROOT / "build"


def sources(name: str) -> list[Path]:
    """The .py halves that a name on the command line means."""
    found = sorted(NOTEBOOKS.glob("[0-9]*.py"))
    if name == "all":
        return found
    chosen = [path for path in found if path.stem == name]
    if not chosen:
        sys.exit(f"NB={name} is no notebook; use all or one of {', '.join(path.stem for path in found)}")
    return chosen


def execute(notebook: nbformat.NotebookNode, folder: Path, echo: bool) -> None:
    """Run every cell in `folder`, in place; with echo, the text that cells print appears as they finish."""
    def show(cell, cell_index, execute_reply) -> None:
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if output.get("name") != "stderr" and not text.startswith("<Figure"):
                print(text.rstrip(), flush=True)

    NotebookClient(notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
                   extra_arguments=["--log-level=ERROR"],  # else a warning that other users could listen to its ports
                   on_cell_executed=show if echo else None).execute()


def sync(source: Path) -> None:
    """Regenerate the .ipynb from the .py, execute it at smoke, and write the .py as jupytext would."""
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    execute(notebook, NOTEBOOKS, echo=False)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which would change with every run
    notebook.metadata.pop("widgets", None)
    target = source.with_suffix(".ipynb")
    jupytext.write(notebook, target)
    source.write_text(jupytext.writes(jupytext.read(target), fmt="py:percent"))


def run(source: Path) -> None:
    """Execute a copy under build/, print what it prints, and leave the copy and its HTML there."""
    notebook = jupytext.read(source)
    executed, page = BUILD / f"{source.stem}.ipynb", BUILD / f"{source.stem}.html"
    BUILD.mkdir(exist_ok=True)
    try:
        execute(notebook, NOTEBOOKS, echo=True)
    finally:  # what was computed before an error or an interrupt is kept
        nbformat.write(notebook, executed)
        page.write_text(HTMLExporter().from_notebook_node(notebook)[0])
    print(f"\nexecuted copy: {executed}\nas a page:     {page}")


def timed(action: Callable[[Path], None], source: Path) -> None:
    """Do it, and keep in data/minutes.json how long it took, beside the speed of this machine just then."""
    import vixlib as vix
    from vixlib.measure.durations import write_minutes, yardstick

    device = vix.pick_device()
    profile = vix.current_profile(device=device)
    before, started = yardstick(device), time.monotonic()
    action(source)
    seconds = time.monotonic() - started
    write_minutes(source.stem, profile.name, profile.data, seconds, (before + yardstick(device)) / 2, device)


ACTIONS = {"sync": sync, "run": run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=tuple(ACTIONS))
    parser.add_argument("name")
    parser.add_argument("--profile", default="auto", help="auto, smoke, quick or paper")
    parser.add_argument("--data", help="data set name or folder instead of the profile's")
    parser.add_argument("--minutes", action="store_true", help="also write how long each took to data/minutes.json")
    chosen = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"  # bars would be stored line by line
    os.environ["VIX_PROFILE"] = "smoke" if chosen.action == "sync" else chosen.profile
    if chosen.data:
        folder = Path(chosen.data)
        os.environ["VIX_DATASET"] = str(folder.resolve()) if folder.exists() else chosen.data
    # Kernels are found by the environment's PATH: the one this program runs in comes first.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for source in sources(chosen.name):
        started = time.monotonic()
        action = ACTIONS[chosen.action]
        timed(action, source) if chosen.minutes else action(source)
        print(f"{source.stem}: {time.monotonic() - started:.0f} s")
    if chosen.action == "run":
        print("\nNext: open the copy with Jupyter, change a value in its form cell and run it again; or\n"
              "  make run NB=01_vit                            another notebook (NB=all: every one)\n"
              "  make run PROFILE=quick DATA=data/cifar10-jpg  real pictures, longer")


if __name__ == "__main__":
    main()
