"""Shared by all tests: one thread, because the tensors are tiny and results must not depend on the core count."""
import torch

torch.set_num_threads(1)
