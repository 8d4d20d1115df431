"""Click through a notebook in a real browser: browser.py NAME [--profile smoke]; pictures of it in build/screens.

Starts JupyterLab on this machine alone, opens a copy of the notebook in the system's Chromium (nothing is downloaded),
runs every cell, moves every slider and list once and waits until its figure has changed, and photographs notebook and
web pages at two widths. What is wider than its frame without a scroll bar is an error, as is any cell that fails.
"""
from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
import pages
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
BUILD, SCREENS = ROOT / "build", ROOT / "build" / "screens"
WIDTHS, HEIGHT = (1280, 768), 1600  # a laptop and a tablet; what one picture of a long page shows
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

STATE = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code');
  const errors = cells.flatMap(cell => [...Array(cell.model.outputs.length).keys()].map(i => cell.model.outputs.get(i))
      .filter(output => output.type === 'error').map(output => output.toJSON().ename + ': ' + output.toJSON().evalue));
  return {done: cells.filter(cell => cell.model.executionCount || !cell.model.sharedModel.getSource().trim()).length,
          all: cells.length, errors};
}"""
# Elements that stick out of the cell or page around them, where no ancestor in between scrolls.
CLIPPED = """frame => {
  const found = [];
  const overflow = element => getComputedStyle(element).overflowX;
  for (const element of document.querySelectorAll(frame + ' table, ' + frame + ' img, ' + frame + ' pre')) {
    let parent = element.parentElement, scrolls = ['auto', 'scroll'].includes(overflow(element));
    const cut = part => ['hidden', 'clip'].includes(overflow(part)) && part.scrollWidth > part.clientWidth + 1;
    let hides = !scrolls && cut(element);
    while (parent && !parent.matches(frame)) {
      hides = hides || (!scrolls && cut(parent));
      scrolls = scrolls || ['auto', 'scroll'].includes(overflow(parent));
      parent = parent.parentElement;
    }
    const edge = (parent || document.body).getBoundingClientRect().right;
    if (hides || (!scrolls && element.getBoundingClientRect().right > edge + 1)) {
      found.push(element.tagName + ' ' + (element.innerText || element.alt || '').slice(0, 60));
    }
  }
  return found;
}"""
# A widget's picture has a blob: address, new with every change; a cell's own one carries its bytes in it.
FIGURES = """() => [...document.querySelectorAll('.jp-Notebook img')].map(img => img.src).join()"""


@contextmanager
def jupyter_lab(folder: Path, profile: str) -> Iterator[str]:
    """JupyterLab serving `folder` to this machine alone; gives its address and ends it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, log = secrets.token_hex(16), BUILD / "lab.log"
    environment = {**os.environ, "VIX_PROFILE": profile, "JUPYTER_TOKEN": token,
                   "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
                   "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
                   "JUPYTER_CONFIG_DIR": str(folder / "config"),  # nobody's own settings
                   "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    quiet = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')  # else a question covers the page
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api", server, log)
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_for(url: str, server: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"JupyterLab did not start within {seconds:g} s: {log.read_text()[-2000:]}")


def run_all(page: Page, patience: float) -> None:
    """Run every cell and wait for the last; RuntimeError if one fails, or none is done for `patience` seconds."""
    kernel = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
    page.wait_for_function(kernel, timeout=180_000)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    done, since = -1, time.monotonic()
    while True:
        state = page.evaluate(STATE)
        if state["errors"]:
            raise RuntimeError(f"a cell failed: {state['errors'][0]}")
        if state["done"] != done:
            done, since = state["done"], time.monotonic()
            print(f"  {done} of {state['all']} cells", flush=True)
        if done == state["all"]:
            return
        if time.monotonic() - since > patience:
            raise RuntimeError(f"no cell was done for {patience:g} s after the first {done} of {state['all']}")
        page.wait_for_timeout(1000)


def move_widgets(page: Page, seconds: float = 30) -> int:
    """Move each slider and list by one and wait until a figure changes; returns how many there were."""
    sliders = page.locator(".jp-Notebook .widget-slider .noUi-handle, .jp-Notebook .widget-dropdown select")
    for place in range(sliders.count()):
        widget = sliders.nth(place)
        widget.scroll_into_view_if_needed()
        page.wait_for_timeout(1000)  # pictures load as they come into view
        before = page.evaluate(FIGURES)
        if widget.evaluate("element => element.tagName") == "SELECT":
            chosen, length = widget.evaluate("element => [element.selectedIndex, element.length]")
            widget.select_option(index=(chosen + 1) % length)
        else:
            end = widget.get_attribute("aria-valuenow") == widget.get_attribute("aria-valuemax")
            widget.press("ArrowLeft" if end else "ArrowRight")
        started = time.monotonic()
        while page.evaluate(FIGURES) == before:
            if time.monotonic() - started > seconds:
                raise RuntimeError(f"widget {place + 1} was moved, and no figure changed within {seconds:g} s")
            page.wait_for_timeout(50)
        print(f"  widget {place + 1}: its figure changed after {time.monotonic() - started:.2f} s")
    return sliders.count()


def photograph(page: Page, name: str, scroller: str, frame: str, whole: bool = True) -> list[str]:
    """Pictures of a long page from top to bottom (else: of its top) at each width, and what is clipped there."""
    wrong = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.wait_for_timeout(1500)
        top, number = 0, 0
        while True:
            height = page.evaluate("([where, top]) => { const box = document.querySelector(where); box.scrollTop = top;"
                                   " return box.scrollHeight; }", [scroller, top])
            page.wait_for_timeout(700)
            page.screenshot(path=SCREENS / f"{name}_{width}_{number:02}.png")
            wrong += [f"{name} at {width}: {what}" for what in page.evaluate(CLIPPED, frame)]
            top, number = top + HEIGHT - 200, number + 1
            if top >= height or not whole:
                break
    return list(dict.fromkeys(wrong))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--patience", type=float, default=1800, help="seconds that one cell may take")
    chosen = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no Chromium here; apt-get install chromium")
    folder = BUILD / "lab"
    for emptied in (folder, SCREENS):
        shutil.rmtree(emptied, ignore_errors=True)
        emptied.mkdir(parents=True)
    source = ROOT / "notebooks" / f"{chosen.name}.py"
    if not source.is_file():
        sys.exit(f"NB={chosen.name} is no notebook; use the name of one in notebooks/")
    copy = folder / f"{chosen.name}.ipynb"
    nbformat.write(jupytext.read(source), copy)  # as if nobody had run it
    with sync_playwright() as playwright, jupyter_lab(folder, chosen.profile) as address:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has none for root
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        page = browser.new_page(viewport={"width": WIDTHS[0], "height": HEIGHT})
        page.goto(address.format(copy.name), timeout=180_000)
        run_all(page, chosen.patience)
        moved = move_widgets(page)
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        wrong = photograph(page, chosen.name, ".jp-WindowedPanel-outer", ".jp-OutputArea")
        for path in pages.build():
            page = browser.new_page(viewport={"width": WIDTHS[0], "height": HEIGHT})
            page.goto(path.as_uri(), wait_until="domcontentloaded")
            wrong += photograph(page, f"site_{path.stem}", "html", "body", whole=path.stem == chosen.name)
            page.close()
        browser.close()
    print(f"{moved} widget(s) moved; {len(list(SCREENS.iterdir()))} pictures in {SCREENS}")
    if wrong:
        sys.exit("wider than their frame:\n  " + "\n  ".join(wrong))


if __name__ == "__main__":
    main()
