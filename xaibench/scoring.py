"""From a countermeasure's logits to one number an utterance: the log-odds of bona fide against everything else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from xaibench.audio import fit
from xaibench.errors import AudioError, PluginError, XaibenchError, told
from xaibench.protocols import Countermeasure


def bonafide_index(classes: Sequence[str]) -> int:
    """Which logit is bona fide. A countermeasure says so by name: confusing it flips every explanation."""
    if list(classes).count("bonafide") != 1 or len(classes) < 2:
        raise PluginError(f"classes must name 'bonafide' exactly once beside at least one other, got {list(classes)}")
    return list(classes).index("bonafide")


def bonafide_log_odds(logits: Tensor, classes: Sequence[str]) -> Tensor:
    """`l_bonafide - logsumexp(l_others)`. Shape: `(B, K)` -> `(B,)`. Positive = bona fide.

    Raises PluginError unless there is one logit a class.

    >>> bonafide_log_odds(torch.tensor([[1.0, 3.0]]), ("spoof", "bonafide")).tolist()
    [2.0]
    """
    index = bonafide_index(classes)
    if logits.ndim != 2 or logits.shape[1] != len(classes):
        raise PluginError(f"expected logits (B, {len(classes)}) for the classes {list(classes)}, got {tuple(logits.shape)}")
    others = torch.cat([logits[:, :index], logits[:, index + 1 :]], dim=1)
    return logits[:, index] - others.logsumexp(dim=1)


def windows(samples: np.ndarray, n_samples: int) -> np.ndarray:
    """Windows `(W, n_samples)` covering a recording, half overlapping, the last one flush with the end.

    A recording shorter than a window is repeated to its length. Raises AudioError for an empty one.

    >>> windows(np.arange(7.0), 4).tolist()
    [[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0], [3.0, 4.0, 5.0, 6.0]]
    """
    if len(samples) == 0:
        raise AudioError("an empty recording cannot be scored, expected at least one sample")
    if len(samples) <= n_samples:
        return fit(samples, n_samples)[None]
    last = len(samples) - n_samples
    starts = sorted({*range(0, last, max(n_samples // 2, 1)), last})
    return np.stack([samples[s : s + n_samples] for s in starts])


@contextmanager
def asking(whom: str, of: str) -> Iterator[None]:
    """Within the block a countermeasure scores recordings, where there is no cell that could hold its fault.

    Whatever it raises, `SystemExit` too, becomes a PluginError that says who and `of` what; Ctrl-C passes.

    >>> with asking("lcnn", "a.wav"):
    ...     raise ValueError("no")
    Traceback (most recent call last):
    xaibench.errors.PluginError: a.wav: lcnn gives no score (ValueError: no)
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except XaibenchError as error:
        raise type(error)(f"{of}: {error}") from error
    except BaseException as error:
        raise PluginError(f"{of}: {whom} gives no score ({told(error)})") from error


@torch.inference_mode()
def score_recordings(
    cm: Countermeasure, recordings: Sequence[np.ndarray], *, device: torch.device | str = "cpu", batch_size: int = 16
) -> np.ndarray:
    """One bona fide log-odds a recording `(len(recordings),)`: the mean over its windows. The model must be in eval()."""
    if not recordings:
        return np.empty(0)
    cut = [windows(r, cm.n_samples) for r in recordings]
    owner = np.repeat(np.arange(len(cut)), [len(w) for w in cut])
    stacked = np.concatenate(cut)
    scores = np.concatenate(
        [
            bonafide_log_odds(
                cm(torch.from_numpy(stacked[i : i + batch_size]).to(device)).double(), cm.classes
            ).cpu().numpy()
            for i in range(0, len(stacked), batch_size)
        ]
    )  # fmt: skip
    return np.bincount(owner, weights=scores) / np.bincount(owner)
