"""The command `audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaibench.cli.app import app
from xaibench.cli.output import note, progress_bar, say
from xaibench.cli.words import batch_size_of, cm_options, roots_of, split_names
from xaibench.errors import XaibenchError


@app.command()
def audit(
    cm: Annotated[str, typer.Option(help="One countermeasure.")] = "lcnn",
    data: Annotated[str, typer.Option(help="Data set with bona fide twins, or the path of a manifest.")] = "minivoc",
    root: Annotated[list[str] | None, typer.Option(help="Folder of the data set, where not embedded.")] = None,
    split: Annotated[str, typer.Option(help="Which split: train, dev or eval.")] = "eval",
    xai: Annotated[str, typer.Option(help="Methods, `all`, or `usual`: one or two of every kind.")] = "usual",
    limit: Annotated[int, typer.Option(help="Vocoded utterances.")] = 45,
    parts: Annotated[
        str,
        typer.Option(help="use, overview, twinpath, constants, ceiling, meta, planted (all methods), or `all`."),
    ] = "all",
    steps: Annotated[int, typer.Option(help="Steps of the search for the best order of cells.")] = 40,
    checkpoint: Annotated[str | None, typer.Option(help="Weights (safetensors) instead of the shipped.")] = None,
    cm_set: Annotated[list[str] | None, typer.Option(help="CM.OPTION=VALUE on top of its card's, repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[str, typer.Option(help="Utterances a chunk, inputs at a time; `auto`: what fits.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder of the page; the same command continues there.")] = None,
) -> None:
    """Examine the benchmark itself: does the countermeasure use the truth, do constants decide, can metrics be trusted?

    Writes OUT/audit.md with figures, OUT/audit.json with every number. Half an hour on two cores for LCNN; a stopped audit
    continues. `xaibench audit --cm lcnn`
    """
    from xaibench.audit.run import PARTS
    from xaibench.audit.run import audit as examine
    from xaibench.audit.runs import AuditSpec, default_methods
    from xaibench.harness.device import choose_device
    from xaibench.harness.known import known_countermeasures, known_datasets, known_names
    from xaibench.leaderboard.table import kind

    size = batch_size_of(batch_size)
    names, _ = known_countermeasures(split_names(cm), {cm: checkpoint} if checkpoint else {})
    if len(names) != 1:
        raise XaibenchError(f"--cm {cm!r}: `audit` takes one countermeasure at a time")
    if xai == "usual":
        methods: tuple[str, ...] = default_methods()
    else:
        methods, broken = known_names("attributors", split_names(xai))
        for problem in broken:
            note(problem)
    methods = tuple(m for m in methods if kind(m) == "method")
    options = cm_options(names, cm_set or [], None).get(names[0], {})
    spec = AuditSpec(
        names[0], methods, data=known_datasets([data])[0], split=split, limit=limit, seed=seed, steps=steps,
        root=roots_of(root or [], data), checkpoint=checkpoint, cm_options=options,
    )  # fmt: skip
    folder = out or Path("results") / f"audit-{names[0]}-{Path(data).stem}"
    with progress_bar() as show_step:
        found = examine(
            spec, folder, parts=PARTS if parts == "all" else tuple(split_names(parts)), device=choose_device(device),
            batch_size=size, report=show_step,
        )  # fmt: skip
    for section in found.sections:
        say(f"{section.title}\n  {section.answer[0]}")
    for problem in found.problems:
        say(f"  note: {problem}")
    say(found.paths[0])
