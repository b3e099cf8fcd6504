"""The command line: parsing and printing only. What it does lives in the harness, training, leaderboard and audit."""
# ruff: noqa: I001 - the order of the imports is that of the commands in `--help`

from __future__ import annotations

from xaibench.cli.app import app, main
from xaibench.cli import (
    scoring,
    sharing,
    explaining,
    activating,
    drawing,
    auditing,
    detectors,
    data,
    plugins,
    checking,
    doctoring,
    listing,
    listening,
)

__all__ = [
    "activating",
    "app",
    "auditing",
    "checking",
    "data",
    "detectors",
    "doctoring",
    "drawing",
    "explaining",
    "listening",
    "listing",
    "main",
    "plugins",
    "scoring",
    "sharing",
]
