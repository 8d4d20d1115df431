"""Unit tests with other versions: oldest (the lowest in pyproject.toml), newest, or a torch of one's choice.

    python3.10 .ci/versions.py oldest
    python3.13 .ci/versions.py newest
    python3.12 .ci/versions.py 2.11

The Python that runs this makes a virtual environment in build/oldest, build/newest or build/2.11, installs there and
tests; further words go to pytest.
"""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINNED = re.compile(r'"([\w-]+)>=([\d.]+)"')


def lowest(pyproject: str) -> dict[str, str]:
    """Package -> the lowest version that the text of pyproject.toml allows; of several for one package, the highest."""
    found: dict[str, str] = {}
    for package, version in PINNED.findall(pyproject):
        found[package] = max(version, found.get(package, version), key=lambda v: [int(part) for part in v.split(".")])
    return found


def main(which: str, *pytest: str) -> None:
    place = ROOT / "build" / which
    python, limits = place / "bin" / "python", place / "limits.txt"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pinned = {"oldest": lowest((ROOT / "pyproject.toml").read_text()), "newest": {}}.get(which, {"torch": which})
    limits.write_text("".join(f"{package}=={version}.*\n" for package, version in pinned.items()))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "--constraint", limits,
                    "--editable", f"{ROOT}[notebooks,dev]"], check=True)
    print("Python", sys.version.split()[0], flush=True)
    subprocess.run([python, "-c", "import torch, torchvision; print('torch', torch.__version__, 'torchvision', "
                                  "torchvision.__version__)"], check=True)
    sys.exit(subprocess.run([python, "-m", "pytest", "-q", "tests", *pytest], cwd=ROOT).returncode)


if __name__ == "__main__":
    if len(sys.argv) < 2 or not re.fullmatch(r"oldest|newest|\d+(\.\d+)+", sys.argv[1]):
        sys.exit(__doc__)
    main(*sys.argv[1:])
