"""Figures in one style: common and live for all notebooks; diagrams, explore, controls and accuracy_memory for several;
pairs (03), places (04), hosts (05) and layers (06) for one each."""
from .common import (
    COLOURS,
    MARKERS,
    as_picture,
    attention_grid,
    cost_curves,
    cut_into_patches,
    heat_maps,
    in_colours,
    new_axes,
    show_pictures,
    slope_guides,
)
from .live import live_curve, live_curves

__all__ = ["COLOURS", "MARKERS", "as_picture", "attention_grid", "cost_curves", "cut_into_patches", "heat_maps",
           "in_colours", "live_curve", "live_curves", "new_axes", "show_pictures", "slope_guides"]
