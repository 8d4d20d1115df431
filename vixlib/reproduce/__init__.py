"""What `python -m vixlib.reproduce` does: train what a table needs, record it, resume, share and carry the work."""
from .command import main

__all__ = ["main"]
