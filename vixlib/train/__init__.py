"""A training run: its settings, `fit`, and the checkpoint that a killed run goes on from."""
from ..measure.scoring import evaluate
from .loop import fit
from .run import Run, TrainConfig

__all__ = ["Run", "TrainConfig", "evaluate", "fit"]
