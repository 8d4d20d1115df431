"""python -m vixlib.reproduce"""
import sys

from ..files import while_read
from . import main

for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show must not end a run
with while_read():
    status = main()
raise SystemExit(status)
