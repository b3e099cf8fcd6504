"""Packs of a toy run, and packs that somebody changed: taken apart, altered, and put together with hashes that fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import toybench

from xaibench.harness.run import run
from xaibench.submission.pack import BOARD, CLAIMS, ROWS, RUN, json_bytes, pack_bytes, read_pack
from xaibench.submission.remeasure import Own
from xaibench.submission.rows import board_lines, in_order, read_table, table_bytes, with_run_facts

METHODS = ("toy-gradient", "toy-deaf")
CONTROLS = ("oracle", "random", "constant")
METRICS = ("rank-accuracy", "drop-twin", "deletion-twin")


def toy_run(root: Path, folder: Path, *methods: str, dirty: bool = False, **changes: Any) -> Path:
    """A finished run of the toys, as if from committed code."""
    spec = toybench.spec(root, *(methods or (METHODS[0], *CONTROLS)), **{"metrics": METRICS, **changes})
    run(spec, folder, batch_size=2)
    edit_record(folder, lambda record: record["environment"].update(git_dirty=dirty, git_commit="0" * 40))
    return folder


def edit_record(folder: Path, change: Callable[[dict], Any]) -> None:
    """Change run.json in place; the checksums go, as the edit would be an error of its own."""
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    change(record)
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def own(root: Path) -> Own:
    """What the verifier of a toy pack has."""
    return Own(root=str(root), checkpoints={"toy": str(root / "weights" / "toy.safetensors")})


def forged(
    pack: Path, out: Path, *, rows: Callable[[pd.DataFrame], pd.DataFrame] = lambda table: table,
    board: Callable[[list], list] | None = None, record: Callable[[dict], Any] | None = None, claims: list | None = None,
) -> Path:  # fmt: skip
    """A pack with something altered by who knows the format: order, hashes and, unless `board` is given, the board fit."""
    members = read_pack(pack)
    facts = members.run
    if record is not None:
        record(facts)
    table = pd.DataFrame({c: v.astype(object) if v.dtype == "category" else v for c, v in read_table(members.rows).items()})
    table = rows(table)
    texts = [c for c in table if c not in ("value", "seconds")]
    table = in_order(table.assign(**{c: pd.Categorical(table[c]) for c in texts}))
    lines = board_lines(with_run_facts(table, members.run)) if board is None else board(members.board)
    parts = {RUN: json_bytes(facts), ROWS: table_bytes(table), BOARD: json_bytes(lines)}
    if claims is not None:
        parts[CLAIMS] = json_bytes(claims)
    out.write_bytes(pack_bytes(parts))
    return out
