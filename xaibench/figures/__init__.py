"""Every picture of the benchmark, and the one place for colours, type and axes. Opens no window.

For the screen: `show` (one pair and what every method says about it), `training_curves`, `board_bars`. For a page, in PDF,
SVG or PNG at a column's width (`Look`): `board_bars`, `comparison.compare_run`, `curves.draw_curves`; critical differences
and agreeing orders are in `xaibench.diagrams`. matplotlib is imported when a picture is made.
"""

from xaibench.figures.board import board_bars
from xaibench.figures.gallery import WIDTH, show, show_run
from xaibench.figures.panels import FLOOR_DB
from xaibench.figures.style import BLUE, DPI, GREEN, GREY, MAP, ORANGE, SPECTROGRAM, VERMILLION, Look, Picture
from xaibench.figures.training import training_curves

__all__ = [
    "BLUE", "DPI", "FLOOR_DB", "GREEN", "GREY", "MAP", "ORANGE", "SPECTROGRAM", "VERMILLION", "WIDTH", "Look", "Picture",
    "board_bars", "show", "show_run", "training_curves",
]  # fmt: skip
