"""Makes `rebuild` importable for its tests and doctests: the scripts are no part of the installed package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
