"""vixlib: token mixers for vision, the models that host them, and what it takes to train and measure them.

    import vixlib as vix
    model = vix.build("ViN", patch_size=4, num_landmarks=16)
    run = vix.fit(model, vix.load("shapes"), vix.TrainConfig(epochs=3))
    vix.compare(table=1, runs=[run])

Where what is, from the bottom up:
    errors, precision, device, files              what all the rest stands on
    mixers/, positions, embeddings, models/       the architectures; models/zoo.py names them
    images, shapes, data (sources, folders)       pictures, and where they come from
    run, train (checkpoint, schedule, limits, …)  a training run; scoring evaluates
    measure, memory, cost, lengths                parameters, bytes, seconds
    records (rules), tables, report, claims, …    what was recorded, and how the paper's tables look beside it
    reproduce (jobs, workers, agenda, parcels)    the command that trains a table
    figures, diagrams, explore (controls), probe  pictures for all notebooks; and for one each: pairs (03), places (04),
                                                  hosts (05), layers (06)
"""
__version__ = "0.1.0"

from .data import load
from .device import describe, pick_device, pick_precision
from .images import ImageData
from .measure import (
    count_parameters,
    max_batch_size,
    peak_memory,
    predict_peak_memory,
    saved_bytes_per_image,
    throughput,
)
from .models import FNet, ViL, ViN, ViP, ViT, ViX, applicable, build, names
from .profiles import PROFILES, Profile, announce, current_profile
from .records import read_records
from .report import compare
from .run import Run, TrainConfig
from .scoring import Scores, evaluate, predict
from .tables import authors_runs, paper_table
from .train import fit

__all__ = ["FNet", "ImageData", "PROFILES", "Profile", "Run", "Scores", "TrainConfig", "ViL", "ViN", "ViP", "ViT",
           "ViX", "announce", "applicable", "authors_runs", "build", "compare", "count_parameters", "current_profile",
           "describe", "evaluate", "fit", "load", "max_batch_size", "names", "paper_table", "peak_memory",
           "pick_device", "pick_precision", "predict", "predict_peak_memory", "read_records", "saved_bytes_per_image",
           "throughput"]
