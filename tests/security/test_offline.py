"""Nothing calls home: the main job, its site, an explanation and every plugin's import, without a network.

Two walls, as either alone has a hole. An audit hook, which Python code cannot take down, raises where a socket is connected
or a name looked up, and says who asked. A network namespace without interfaces, where the system lets us have one, stops
libraries that open sockets in C.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

WALL = """
import sys
ASKED = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo",
         "socket.sendto", "socket.sendmsg", "urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect"}
def wall(event, arguments):
    if event in ASKED and not (event == "socket.connect" and isinstance(arguments[1], (str, bytes))):  # a path: this machine
        raise PermissionError(f"the network was asked for: {event} {arguments!r}")
sys.addaudithook(wall)
"""
COMMANDS = (
    WALL
    + """
from xaibench import cli
for words in eval(sys.argv[1]):
    sys.argv = ["xaibench", *words]
    try:
        cli.main()
    except SystemExit as done:
        if done.code:
            raise SystemExit(f"{words}: exit status {done.code}")
"""
)
EVERY = (
    WALL
    + """
from xaibench import registry
groups = ("attributors", "countermeasures", "datasets", "vocoders", "metrics")
names = [(group, name) for group in groups for name in registry.plugins(group)]
for group, name in names:
    registry.load(group, name)
print(len(names))
"""
)


@cache
def wall() -> tuple[str, ...]:
    """What starts a command without a network interface, where the system lets us; else nothing."""
    for command in (("unshare", "-n"), ("unshare", "-rn")):
        if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return ()


def alone(code: str, *words: str, folder: Path) -> str:
    """What a program prints in a process of its own. The test fails where the program does."""
    environment = {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder), "MPLCONFIGDIR": str(folder)}
    command = [*wall(), sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=600)
    assert done.returncode == 0 and "the network was asked for" not in done.stderr, done.stderr[-3000:]
    return done.stdout


def demo(folder: Path, methods: str, limit: str) -> str:
    """The main job on the embedded corpus, and what reads its folder."""
    run = str(folder / "run")
    return repr([
        ["run", "--cm", "lcnn", "--xai", methods, "--limit", limit, "--keep-maps", "--out", run],
        ["leaderboard", run, "--quiet", "--out", str(folder / "site")],
        ["compare", run, "--metric", "rank-accuracy"],
        ["list"],
        ["data", "verify", "minivoc"],
    ])  # fmt: skip


def test_the_demo_needs_no_network(tmp_path):
    out = alone(COMMANDS, demo(tmp_path, "grad-cam,saliency", "1"), folder=tmp_path)
    assert "rows computed" in out and (tmp_path / "site" / "index.html").exists()


@pytest.mark.heavy
def test_no_method_needs_a_network(tmp_path):
    assert "rows computed" in alone(COMMANDS, demo(tmp_path, "all", "1"), folder=tmp_path)


def test_no_import_needs_a_network(tmp_path):
    assert int(alone(EVERY, folder=tmp_path).splitlines()[-1]) > 60


def test_the_wall_stands(tmp_path):
    """The test of the tests: who asks is found out."""
    code = WALL + "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/')"
    with pytest.raises(AssertionError, match="the network was asked for"):
        alone(code, folder=tmp_path)
    code = WALL + "import socket\nsocket.getaddrinfo('example.org', 443)"
    with pytest.raises(AssertionError, match="the network was asked for"):
        alone(code, folder=tmp_path)
