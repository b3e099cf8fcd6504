"""What Python users and notebooks call. Every name here is also one of `xaibench` itself, looked up when first used.

    run, open_run        a benchmark run as an object that a notebook shows: `xaibench.api.runs`
    load_data, truth_of, countermeasure, view_of, attribute       its steps one by one: `xaibench.api.parts`

Nothing is computed here that the command line computes otherwise: a map of `attribute` is the map of a run. This module
imports nothing, so that `import xaibench` costs nothing.
"""
