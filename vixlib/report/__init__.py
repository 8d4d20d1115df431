"""What was recorded, beside what the paper printed: tables, differences, verdicts."""
from ..table import Table
from .batches import largest_batches
from .comparison import NOT_MEASURED, compare
from .differences import claims, rope_claims, rope_table
from .experiments import reasons_table
from .logs import first_epochs_table
from .memory import cost_table, fits_table
from .paper import authors_runs, paper_table
from .records import read_records
from .rows import ROPE_MODELS
from .verdicts import verdict_table

__all__ = ["NOT_MEASURED", "ROPE_MODELS", "Table", "authors_runs", "claims", "compare", "cost_table",
           "first_epochs_table", "fits_table", "largest_batches", "paper_table", "read_records", "reasons_table",
           "rope_claims", "rope_table", "verdict_table"]
