"""What the tests of interrupted runs share."""

from __future__ import annotations

import pytest
from crashing import Server


@pytest.fixture(scope="module")
def server(root):
    """A process that forks runs, each of which can be killed or refused something."""
    server = Server(root)
    yield server
    server.close()
