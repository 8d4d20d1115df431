"""What a training step needs as a picture is cut finer: a fit through predictions at two sequence lengths.

A prediction takes seconds, a fit answers at once. Per image a step keeps c + aN bytes for N tokens, or aN + bN² where
an attention matrix is stored; weights, gradients and AdamW's moments come once, and grow with N by the position table.
`python -m vixlib.measure.lengths` predicts anew and writes the file that `stored` reads.
"""
from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..errors import as_file_path
from ..files import DATA, require_writable, write_atomic
from ..models.zoo import build
from ..provenance import environment
from .memory import predict_peak_memory

FILE = DATA / "memory_by_length.json"
# How attention is computed: name of the curve -> (system, its options, precision).
WAYS = {"softmax materialised": ("ViT", {"fused": False}, "float32"), "softmax": ("ViT", {}, "float16"),
        "performer": ("ViP", {}, "float16"), "linformer": ("ViL", {"rank": 64}, "float16"),
        "nystrom": ("ViN", {"num_landmarks": 64}, "float16")}
# Tokens of square pictures with a token a pixel, and CLS; the last one is held out, to test the fit with.
SIDES = {257: 16, 1025: 32, 4097: 64}
FITTED = (257, 1025)
BATCHES = (8, 16)


class Needs(NamedTuple):
    """Bytes at the peak of a training step: fixed, with N the tokens of an image, and for each image."""

    fixed: tuple[float, float]  # f + gN
    image: tuple[float, float, float]  # c + aN + bN²

    def bytes(self, tokens: int, batch_size: int) -> float:
        """Predicted bytes of a step at `batch_size` images of `tokens` tokens each, CLS among them."""
        constant, linear, square = self.image
        return (self.fixed[0] + self.fixed[1] * tokens
                + batch_size * (constant + linear * tokens + square * tokens * tokens))


def predict(way: str, tokens: int) -> dict[str, int]:
    """Peak bytes of `way` at `tokens` (of SIDES): batch size -> bytes. Some seconds each."""
    name, options, precision = WAYS[way]
    model = build(name, image_size=SIDES[tokens], **options)
    return {str(batch): predict_peak_memory(model, batch, precision).bytes for batch in BATCHES}


def fit(peaks: dict[str, dict[str, int]], squares: bool) -> Needs:
    """`Needs` through `peaks`, tokens -> batch size -> bytes, at the two lengths FITTED; squares: bN², else c."""
    small, large = BATCHES
    (n, first), (m, second) = ((tokens, peaks[str(tokens)]) for tokens in FITTED)
    image = [(peak[str(large)] - peak[str(small)]) / (large - small) for peak in (first, second)]
    fixed = [peak[str(small)] - small * one for peak, one in zip((first, second), image, strict=True)]
    growth = (fixed[1] - fixed[0]) / (m - n)
    if squares:
        square = (image[1] / m - image[0] / n) / (m - n)
        terms = 0.0, image[0] / n - square * n, square
    else:
        slope = (image[1] - image[0]) / (m - n)
        terms = image[0] - slope * n, slope, 0.0
    return Needs((fixed[0] - growth * n, growth), terms)


@cache
def stored(path: Path = FILE) -> dict[str, Needs]:
    """The fit of every way, from the file of predictions."""
    peaks = json.loads(path.read_text())["peaks"]
    return {way: fit(peaks[way], squares="materialised" in way) for way in WAYS}


def write(path: Path = FILE) -> Path:
    """Predict every way at every length and write the file: some minutes."""
    require_writable(path)  # before they are spent on what could not be kept
    peaks = {way: {str(tokens): predict(way, tokens) for tokens in SIDES} for way in WAYS}
    return write_atomic(path, json.dumps({**environment("cpu"), "peaks": peaks}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m vixlib.measure.lengths", description=write.__doc__)
    parser.add_argument("--to", type=Path, default=FILE, help="the file")
    try:
        print(write(as_file_path("--to", parser.parse_args().to)))
    except (OSError, ValueError) as error:
        parser.error(str(error))
