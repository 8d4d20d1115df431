"""README's picture: what a training step costs against the number of tokens, drawn from the recorded benchmark."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vixlib.figures import common as figures
from vixlib.report.benchmarks import BENCHMARKS, read

PICTURE = BENCHMARKS / "scaling.png"
KEY = "Source"  # of the PNG's own text: what it was drawn from, because its bytes differ with every matplotlib
NAMES = {"softmax, fused": "softmax, fused kernel (today)", "softmax, materialised": "softmax, N×N matrix (2021)",
         "performer": "Performer", "linformer": "Linformer", "nystrom": "Nyström"}
UNITS = {"seconds": ("seconds of a training step", 1.0), "bytes": ("MiB at its peak", 2**20)}


def source(folder: Path = BENCHMARKS) -> dict:
    """The record to draw: of a GPU where there is one, else of a CPU. FileNotFoundError if there is none."""
    found = read(folder, "scaling")
    if not found:
        raise FileNotFoundError(f"{folder} holds no scaling record; run make bench")
    return max(found, key=lambda one: (one["kind"] == "cuda", one["started"]))


def digest(found: dict) -> str:
    """What identifies a record's figures, and the way they are named."""
    return hashlib.sha256(json.dumps([found, NAMES, UNITS], sort_keys=True).encode()).hexdigest()


def draw(path: Path = PICTURE, folder: Path = BENCHMARKS) -> Path:
    """Draw the picture into `path`; its metadata names the record that it shows."""
    found = source(folder)
    precision = found["rows"][0]["precision"]
    figure, axes = figures.new_axes(2, width=5.4, height=3.8)
    for ax, (what, (label, unit)) in zip(axes, UNITS.items(), strict=True):
        for row in found["rows"]:
            if row["mixer"] in NAMES and row["precision"] == precision:
                mixer = row["mixer"].split(",")[0]
                ax.plot(row["tokens"], [cost / unit for cost in row[what]["training"]], color=figures.COLOURS[mixer],
                        marker=figures.MARKERS[mixer], markersize=4, label=NAMES[row["mixer"]],
                        linestyle="--" if "materialised" in row["mixer"] else "-")
        tokens = found["settings"]["tokens"]
        ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        ax.set_xticks(tokens, [f"{n:,}" for n in tokens], fontsize=8)
        ax.minorticks_off()
    axes[0].legend(fontsize=8.5, frameon=False)
    shape = found["settings"]
    figure.suptitle(f"One mixing layer, width {shape['dim']}, {shape['heads']} heads, batch {shape['batch']}, "
                    f"{precision}, measured on {found['device']}", fontsize=10)
    figure.savefig(path, dpi=130, metadata={KEY: digest(found)})
    return path


def is_current(path: Path = PICTURE, folder: Path = BENCHMARKS) -> bool:
    """Whether the stored picture shows the record that is in `folder` now."""
    from PIL import Image

    return path.is_file() and Image.open(path).text.get(KEY) == digest(source(folder))
