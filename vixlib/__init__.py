"""vixlib: token mixers for vision, the models that host them, and what it takes to train and measure them.

    import vixlib as vix
    model = vix.build("ViN", patch_size=4, num_landmarks=16)
    run = vix.fit(model, vix.load("shapes"), vix.TrainConfig(epochs=3))
    vix.compare(table=1, runs=[run])

Where what is, from the bottom up:
    errors, precision, lean, device, kernels,
    files, provenance, table                    what all the rest stands on
    mixers/, positions, embeddings, models/     the architectures; models/zoo.py names them
    data/                                       pictures, and where they come from
    measure/                                    parameters, bytes, seconds, accuracy
    train/, profiles                            a training run, and how large a notebook's may be
    report/                                     records, and how the paper's tables look beside them
    reproduce/                                  the command that trains a table
    figures/                                    the notebooks' pictures
"""
__version__ = "0.1.0"

from .data.images import ImageData
from .data.loading import load
from .device import describe, pick_device, pick_precision
from .measure.memory import max_batch_size, peak_memory, predict_peak_memory, saved_bytes_per_image
from .measure.parameters import count_parameters
from .measure.scoring import Scores, evaluate, predict
from .measure.speed import throughput
from .models import FNet, ViL, ViN, ViP, ViT, ViX, applicable, build, names
from .profiles import PROFILES, Profile, announce, current_profile
from .report.comparison import compare
from .report.paper import authors_runs, paper_table
from .report.records import read_records
from .train.loop import fit
from .train.run import Run, TrainConfig

__all__ = ["FNet", "ImageData", "PROFILES", "Profile", "Run", "Scores", "TrainConfig", "ViL", "ViN", "ViP", "ViT",
           "ViX", "announce", "applicable", "authors_runs", "build", "compare", "count_parameters", "current_profile",
           "describe", "evaluate", "fit", "load", "max_batch_size", "names", "paper_table", "peak_memory",
           "pick_device", "pick_precision", "predict", "predict_peak_memory", "read_records", "saved_bytes_per_image",
           "throughput"]
