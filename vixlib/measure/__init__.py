"""Every number taken from a model or a mixer: parameters, bytes, seconds, accuracy, where its tokens look."""
from .checkup import check_mixer
from .cost import crossing, mixer_bytes, mixer_seconds
from .live_bytes import kept_for_backward
from .memory import MARGIN, max_batch_size, peak_memory, predict_peak_memory, saved_bytes_per_image
from .parameters import count_parameters
from .probe import attention_maps, mixer_inputs, shift_consistency
from .scoring import Scores, evaluate, predict
from .speed import throughput

__all__ = ["MARGIN", "Scores", "attention_maps", "check_mixer", "count_parameters", "crossing", "evaluate",
           "kept_for_backward", "max_batch_size", "mixer_bytes", "mixer_inputs", "mixer_seconds", "peak_memory",
           "predict", "predict_peak_memory", "saved_bytes_per_image", "shift_consistency", "throughput"]
