"""Where numbers came from: versions, device, commit. Stamped on every run."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import xaibench
from xaibench.installed import versions

PACKAGES = ("torch", "torchaudio", "numpy", "scipy", "captum", "grad-cam", "shap", "zennit", "soundfile", "pandas")

#: git without what a repository's own configuration may have it start (a monitor, hooks, other repositories), or write.
GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_STATUS = ("--porcelain", "--untracked-files=no", "--ignore-submodules=all")


def environment(device: torch.device) -> dict[str, Any]:
    """The stamp for run.json. `git_commit` is None outside a checkout; `git_dirty` says uncommitted changes."""
    commit, dirty = _git()
    cuda = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "xaibench": xaibench.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": cuda or "cpu",
        "threads": torch.get_num_threads(),
        "packages": versions(PACKAGES),
        "git_commit": commit,
        "git_dirty": dirty,
    }


def _git() -> tuple[str | None, bool | None]:
    root = Path(xaibench.__file__).parents[1]
    if not (root / ".git").exists():
        return None, None
    try:
        run: dict[str, Any] = {"cwd": root, "capture_output": True, "text": True, "check": True, "timeout": 10}
        commit = subprocess.run([*GIT, "rev-parse", "HEAD"], **run).stdout.strip()
        status = subprocess.run([*GIT, "status", *_STATUS], **run).stdout
    except (OSError, subprocess.SubprocessError):
        return None, None  # no git on this machine, or a checkout without commits
    return commit, bool(status.strip())
