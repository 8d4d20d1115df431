"""Opening a notebook anywhere: its setup cell finds vixlib, the wheel holds what vixlib reads, `announce` tells all."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

import vixlib as vix
from vixlib.measure import durations

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
FOLDERS = ("work", "input", "bin", "installed")
LOG = "called"  # what the stand-in for git was asked


def setup_cell(source: Path) -> str:
    return next(cell.source for cell in jupytext.read(source).cells if cell.cell_type == "code")


def package(folder: Path) -> Path:
    """A stand-in for a checkout: its vixlib does nothing but be importable."""
    (folder / "vixlib").mkdir(parents=True)
    (folder / "vixlib" / "__init__.py").write_text("pick_device = lambda: 'cpu'\n")
    return folder


class Machine:
    """An empty folder with a notebook's setup cell in it, a torch that is only a name, and a git that copies or fails.

    Without site-packages (python -S), so that no vixlib installed here is seen.
    """

    def __init__(self, folder: Path) -> None:
        made = self.work, self.input, self.bin, self.installed = [folder / name for name in FOLDERS]
        for each in made:
            each.mkdir()
        (self.installed / "torch.py").write_text("")
        self.remote = package(folder / "remote")
        self.network(True)

    def network(self, on: bool) -> None:
        answer = 'for last; do :; done; cp -r "$REMOTE" "$last"' if on else "exit 128"
        (self.bin / "git").write_text(f'#!/bin/sh\necho "$@" >> {self.bin / LOG}\n{answer}\n')
        (self.bin / "git").chmod(0o755)

    def calls(self) -> list[str]:
        log = self.bin / LOG
        return log.read_text().splitlines() if log.exists() else []

    def run(self, cwd: Path | None = None, then: str = "", python: tuple[str, ...] = ("-S",),
            path: str | None = None) -> subprocess.CompletedProcess:
        cell = setup_cell(NOTEBOOKS[0])
        assert cell.count('"/kaggle/input"') == 2
        code = cell.replace('"/kaggle/input"', repr(str(self.input))) + "\nprint(vix.__file__)\n" + then
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin", "PYTHONPATH": path or str(self.installed),
                       "REMOTE": str(self.remote), "KAGGLE_KERNEL_RUN_TYPE": "Interactive", "HOME": str(self.work)}
        return subprocess.run([sys.executable, *python, "-c", code], cwd=cwd or self.work, env=environment,
                              capture_output=True, text=True)

    def found(self, **options) -> Path:
        done = self.run(**options)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.splitlines()[0]).parents[1]


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_the_setup_cell_is_the_same_in_all_notebooks_and_never_installs():
    cells = {setup_cell(source) for source in NOTEBOOKS}
    assert len(NOTEBOOKS) >= 6 and len(cells) == 1
    assert "pip" not in (cell := cells.pop()) and "install" not in cell.replace("installed", "")
    assert len(cell.splitlines()) <= 25


def test_alone_in_an_empty_folder_the_repository_is_cloned_once(machine):
    assert machine.found() == machine.work / "vision-xformers"
    assert len(machine.calls()) == 1 and "clone --depth 1 https://github.com/" in machine.calls()[0]
    machine.network(False)
    assert machine.found() == machine.work / "vision-xformers" and len(machine.calls()) == 1


def test_an_installed_vixlib_is_used_as_it_is(machine):
    package(machine.installed)
    assert machine.found() == machine.installed and not machine.calls() and not list(machine.work.iterdir())


def test_the_checkout_around_the_notebook_wins_over_an_installed_vixlib(machine):
    package(machine.installed)
    (package(machine.work / "project") / "notebooks").mkdir()
    assert machine.found(cwd=machine.work / "project" / "notebooks") == machine.work / "project"
    assert not machine.calls()


@pytest.mark.parametrize("place", ["mine", "datasets/somebody/mine/vision-xformers-main"])
def test_a_folder_attached_at_kaggle_needs_no_network(machine, place):
    machine.network(False)
    package(machine.input / place)
    assert machine.found() == machine.input / place and not machine.calls()


def test_without_network_the_error_names_the_clicks(machine):
    machine.network(False)
    done = machine.run()
    assert done.returncode == 1 and len(machine.calls()) == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "Settings > Internet on" in last and "Add Input" in last and "could not be cloned" in last


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built as `make wheel` builds it, from a copy: setuptools leaves a build folder in the sources."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", "LICENSE", "vixlib"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    for path in (ROOT / "data").rglob("*.json"):
        (copy / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / path.relative_to(ROOT))
    command = next(line for line in subprocess.run(["make", "-n", "wheel"], cwd=ROOT, capture_output=True, text=True,
                   check=True).stdout.replace("\\\n", "").splitlines() if " pip wheel " in line)
    subprocess.run([sys.executable, *command.split()[1:]], cwd=copy, check=True, capture_output=True)
    return next((copy / "build" / "wheel").glob("*.whl"))


def test_the_wheel_attached_at_kaggle_has_the_package_and_its_tables(machine, wheel):
    attached = machine.input / "datasets" / "somebody" / "vixlib"
    attached.mkdir(parents=True)
    shutil.copy(wheel, attached)
    (attached / "vixlib-0.0.10-py3-none-any.whl").write_bytes(b"an older one, which is not opened")
    machine.network(False)
    # The real packages, but no vixlib among them: a path given this way reads no .pth of an editable installation.
    sites = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    then = ("import json; from vixlib.report import fits_table; from vixlib.measure.durations import read_minutes\n"
            "counts = len(vix.read_records()), len(fits_table().rows), len(read_minutes())\n"
            "print(json.dumps([vix.paper_table(1), *counts]))")
    done = machine.run(then=then, path=os.pathsep.join(sites))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert Path(lines[0]).parents[2] == machine.work / "vixlib-wheel"
    table, records, fits, minutes = json.loads(lines[-1])
    assert table == vix.paper_table(1) and records == len(vix.read_records()) and fits > 20
    assert minutes == len(durations.read_minutes())


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"notebook": "01_vit"}]'])
def test_damaged_minutes_are_named(tmp_path, content):
    (tmp_path / "minutes.json").write_text(content)
    with pytest.raises(ValueError, match=r"minutes\.json holds no minutes of notebooks .*restore it or delete it"):
        durations.notebook_time("01_vit", "smoke", "shapes", "cpu", tmp_path / "minutes.json")


def test_a_copy_of_the_package_alone_says_what_is_missing(tmp_path):
    shutil.copytree(ROOT / "vixlib", tmp_path / "vixlib", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-c", "import vixlib; vixlib.paper_table(1)"], cwd=tmp_path, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert done.returncode == 1 and "paper_tables.json is missing" in done.stderr and "make wheel" in done.stderr


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_announces_itself(source):
    assert f'vix.announce(profile, device, "{source.stem}")' in source.read_text()


def announced(capsys, name: str, notebook: str = "01_vit") -> dict[str, str]:
    vix.announce(vix.current_profile(name), "cpu", notebook)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 88 or " " not in line[10:] for line in lines)
    said: dict[str, str] = {}
    for line in lines:
        name = line[:10].strip() or name
        said[name] = f"{said.get(name, '')} {line[10:]}".strip()
    return said


def test_the_announcement_names_machine_precision_pictures_and_time(capsys, tmp_path, monkeypatch):
    for variable in ("VIX_PROFILE", "VIX_DATASET", "VIX_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    said = announced(capsys, "smoke")
    assert "GiB" in said["device"] and said["precision"] == "float32" and said["profile"].startswith("smoke")
    assert said["pictures"].startswith("drawn by vixlib") and "T4" in said["no GPU"]
    assert announced(capsys, "smoke", "none_such")["time"].startswith("unknown")
    (tmp_path / "pictures").mkdir()
    monkeypatch.setenv("VIX_DATASET", str(tmp_path / "pictures"))
    assert announced(capsys, "quick", "none_such")["pictures"].endswith(str(tmp_path / "pictures"))


@pytest.mark.parametrize(("name", "says"), [("long", "sized down"), ("long-modern", "sized down"),
                                            ("first-epoch", "that takes hours"), ("paper", "that takes days")])
def test_what_a_cpu_is_told_of_a_profile_is_true_of_it(capsys, monkeypatch, name, says):
    monkeypatch.delenv("VIX_PROFILE", raising=False)
    assert says in announced(capsys, name, "none_such")["no GPU"]


def test_options_of_one_profile_are_no_others(monkeypatch):
    monkeypatch.delenv("VIX_PROFILE", raising=False)
    vix.current_profile("quick").options["patch_size"] = 2
    assert vix.current_profile("quick").options["patch_size"] == vix.PROFILES["long"].options["patch_size"] == 4


class TestNotebookTime:
    @pytest.fixture
    def rows(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.setattr(durations, "yardstick", lambda device: 50.0)
        path = tmp_path / "minutes.json"
        for seconds, speed in ((999, 1), (60, 100)):  # the later one replaces the earlier
            durations.write_minutes("01_vit", "smoke", "shapes", seconds, speed, "cpu", path)
        return path

    def test_half_the_speed_is_twice_the_time(self, rows):
        assert len(durations.read_minutes(rows)) == 1
        text = durations.notebook_time("01_vit", "smoke", "shapes", "cpu", rows)
        assert text.startswith("about 2 min") and "60 s on CPU" in text and "0.5 times" in text

    def test_what_was_not_measured_is_unknown(self, rows, tmp_path):
        assert durations.notebook_time("01_vit", "paper", "shapes", "cpu", rows).startswith("unknown")
        assert durations.notebook_time("02_linear_attention", "smoke", "shapes", "cpu", rows).startswith("unknown")
        assert durations.notebook_time("01_vit", "smoke", "cifar10", "cpu", rows).startswith("unknown")
        assert durations.notebook_time("01_vit", "smoke", "shapes", "cpu", tmp_path / "none.json").startswith("unknown")

    def test_a_machine_of_the_same_name_counts_before_another(self, rows):
        known = json.loads(rows.read_text())
        other = {**known[0], "device": "CPU of another kind", "seconds": 5.0, "finished": "2999-01-01"}
        rows.write_text(json.dumps([*known, other]))
        assert "60 s on" in durations.notebook_time("01_vit", "smoke", "shapes", "cpu", rows)

    def test_the_yardstick_is_a_speed_and_leaves_random_numbers_alone(self):
        import torch

        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        assert durations.yardstick("cpu") > 1 and torch.rand(1) == expected


def test_a_profile_of_the_environment_that_is_unknown_is_named(monkeypatch):
    monkeypatch.setenv("VIX_PROFILE", "fast")
    with pytest.raises(ValueError, match="the environment variable VIX_PROFILE='fast' is unknown; use one of 'smoke'"):
        vix.current_profile()
