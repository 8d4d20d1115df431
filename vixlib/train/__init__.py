"""A training run: its settings, `fit`, and the checkpoint that a killed run goes on from."""
from .loop import fit
from .run import Run, TrainConfig

__all__ = ["Run", "TrainConfig", "fit"]
