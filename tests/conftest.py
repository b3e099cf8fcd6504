"""Shared set-up: `import toys` and `from twins import ...` work in every test, and torch keeps to one thread."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
