"""python -m vixlib.reproduce"""
from .command import main

raise SystemExit(main())
