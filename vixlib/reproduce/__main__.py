"""python -m vixlib.reproduce"""
import sys

from ..files import while_read
from . import main

for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show must not end a run
        stream.reconfigure(errors="backslashreplace")
with while_read():
    status = main()
raise SystemExit(status)
