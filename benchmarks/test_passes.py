"""Passes and time of the methods that read the same gradients, each with its own passes and all on one record.

    make bench

A forward or backward pass is counted an utterance; a backward pass that stops at a layer counts as one. The maps are equal:
tests/test_passes.py. `ratio` is the time with own passes over the time with shared ones, the best of two calls each.
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from xaibench import registry
from xaibench.passes import Count, Passes, count_passes
from xaibench.view import View

CAMS = ("grad-cam", "grad-cam++", "hirescam", "xgrad-cam", "layer-cam", "eigen-cam", "eigen-grad-cam", "finer-cam")
GROUPS = {"gradients and CAMs": ("saliency", "input-x-gradient", *CAMS), "CAMs": CAMS}


def _explain(view: View, names: tuple[str, ...], *, shared: bool, together: bool) -> None:
    view = replace(view, passes=Passes.of(view, together=together) if shared else None)
    for name in names:
        registry.load("attributors", name)(view)


def _measured(view: View, names: tuple[str, ...], *, shared: bool, together: bool) -> tuple[Count, float]:
    with count_passes(view.model) as count:
        _explain(view, names, shared=shared, together=together)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        _explain(view, names, shared=shared, together=together)
        seconds.append(time.perf_counter() - started)
    return count, min(seconds)


@pytest.mark.parametrize("shared", [False, True], ids=["own passes", "shared passes"])
@pytest.mark.parametrize("group", GROUPS)
def test_passes(benchmark, prepared, group, shared):
    benchmark.group = f"{group}: {len(GROUPS[group])} methods, {len(prepared.view)} utterances"
    names, together = GROUPS[group], group != "CAMs"
    view = prepared.view
    own, seconds = _measured(view, names, shared=False, together=together)
    count, again = _measured(view, names, shared=True, together=together) if shared else (own, seconds)
    benchmark.extra_info.update(
        forwards=count.forwards, backwards=count.backwards,
        saved=own.forwards + own.backwards - count.forwards - count.backwards,
    )  # fmt: skip
    if shared:
        benchmark.extra_info["ratio"] = round(seconds / again, 2)
    benchmark.pedantic(_explain, (view, names), {"shared": shared, "together": together}, rounds=3)
