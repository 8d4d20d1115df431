"""python -m vixlib.reproduce"""
from ..files import while_read
from . import main

with while_read():
    status = main()
raise SystemExit(status)
