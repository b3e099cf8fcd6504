"""Shared set-up: `import toys` and `from twins import ...` work in every test; one torch thread, no deadlines."""

import sys
from pathlib import Path

import hypothesis
import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)

#: A device registered with torch stays for the whole process, so its checks have one of their own (test_second_device.py).
collect_ignore = ["second"]

# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("xaibench", deadline=None)
hypothesis.settings.load_profile("xaibench")
