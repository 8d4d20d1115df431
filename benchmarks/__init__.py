"""Speed and memory in one run each: against other implementations (peers), against the number of tokens (scaling),
against what the machine could do (roofline). Both sides of every ratio are measured here, taking turns.

    python -m benchmarks.peers --quick
    python -m benchmarks.scaling --quick
    python -m benchmarks.roofline --quick
"""
