"""python -m vixlib.reproduce"""
from . import main

raise SystemExit(main())
