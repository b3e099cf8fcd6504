"""Set-up: the toys of the main tests are importable here, and torch keeps to one thread."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))
torch.set_num_threads(1)
