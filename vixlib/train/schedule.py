"""The learning rate of every step, as a function of settings and step alone: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from .run import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of `step`, counted from 0 over the whole run.

    AdamW's rises linearly to config.lr over config.warmup_epochs (Goyal et al., "Accurate, Large Minibatch SGD",
    section 2.2) and stays there, or with schedule "cosine" falls to zero at the end of AdamW's epochs
    (Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", eq. (5), without restarts).
    The second phase of config.sgd_from, where there is one, follows at the constant config.sgd_lr.
    """
    if step >= config.adamw_epochs * steps_per_epoch:
        return config.sgd_lr
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.lr * min(1.0, (step + 1) / warmup)
    if config.schedule == "constant":
        return config.lr
    done = (step - warmup) / (config.adamw_epochs * steps_per_epoch - warmup)
    return config.lr * (1 + math.cos(math.pi * done)) / 2
