"""The whole site of some run folders: index, a page a board, methods, countermeasures, explorer and downloads.

SITE/index.html                what is compared, and the boards
SITE/boards/SLUG.html          one for each data set x truth x countermeasure x route
SITE/methods/, countermeasures/, downloads/, explorer.html, explorer/    (`profiles`, `downloads`, `explorer`)
SITE/pictures/                 the example on the first page
SITE/assets/                   styles and scripts, plotly among them; nothing comes from elsewhere

The board is read as `xaibench leaderboard` prints it. Pages open from the folder (file://) and are readable without scripts.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from xaibench.errors import XaibenchError, XaibenchWarning
from xaibench.leaderboard import compare
from xaibench.leaderboard.verdict import EER_LIMIT
from xaibench.site import charts, content, folder, shell, stamp
from xaibench.site.bands import bands
from xaibench.site.critical import Diagram, critical_difference
from xaibench.site.source import EXPLORER, Source, read, section

ASSETS = ("board.css", "table.js", "charts.js", "plotly.min.js")


def build(
    runs: Sequence[Path], out: Path, *, cluster: str = "utterance", explorer: bool = True, utterances: int | None = None
) -> Path:
    """Write the site of these runs to the folder `out`. Returns its index.html.

    cluster: what intervals resample, utterance or speaker. explorer: whether to write the explorer, where maps were kept;
    utterances: how many it shows at most. Of an earlier site in `out`, what this one lacks is removed; other files stay
    (`xaibench.site.folder`). The first page is written last.

    Raises as `leaderboard.table.read_rows` and `board`; RunError where the folder cannot be written, or holds somebody
    else's first page.
    """
    from xaibench.site import downloads, profiles
    from xaibench.site import explorer as exploring

    out = Path(out)
    source = read(runs, cluster=cluster, explorer=explorer)
    folder.check(out, source.runs)
    files = [shell.write(out / folder.PLAIN, ""), *shell.copy_assets(out, (*ASSETS, *profiles.ASSETS))]
    if EXPLORER in source.nav:
        found = exploring.write(
            source.runs, out, rows=source.rows, utterances=utterances, nav=source.nav, footer=source.footer
        )
        files += found
        if not found:
            source = replace(source, nav=tuple(item for item in source.nav if item != EXPLORER))
    folder.note(out, files, keep=folder.noted(out))  # if what follows is interrupted
    files += [out / address for _, address, _ in downloads.write(source, out)] + [out / downloads.FOLDER / "index.html"]
    shown = {path.relative_to(out).as_posix() for path in files if path.suffix == ".js"}
    files += profiles.write(source, out, shown=shown)
    files += [shell.write(out / board.page, _board_page(source, board)) for board in source.boards]
    text, pictures = _index(source, out)
    index = shell.write(out / "index.html", text)
    folder.settle(out, [*files, *pictures, index])
    return index


def _board_page(source: Source, board: content.Board) -> str:
    rows = section(source, board)
    pairs = rows[["utterance", "vocoder"]].drop_duplicates().astype(str)
    found = bands(
        source.runs, board.countermeasure, board.route, board.truth,
        sorted(f"{u}/{v}" for u, v in pairs.itertuples(index=False)), [line.name for line in board.lines],
    )  # fmt: skip
    metrics = [h.metric for h in board.headlines] or [board.columns[0].metric]
    charted = {
        "Skill": [*(charts.skills(board, m) for m in metrics)],
        "Skill and cost": [*(charts.cost(board, m) for m in metrics)],
        "Agreement of the metrics": [charts.orders(board)],
        "By vocoder": [charts.breakdown(board, rows, m, "vocoder") for m in metrics],
        "By speaker": [charts.breakdown(board, rows, m, "speaker") for m in metrics],
        "By frequency": [None if found is None else charts.frequency(board, found)],
    }
    groups = [(heading, [p for p in plots if p is not None]) for heading, plots in charted.items()]
    return shell.render(
        "board.html.j2", root="../", title=f"{board.countermeasure} on {board.dataset}", board=board,
        families=_families(board), groups=[g for g in groups if g[1]], diagrams=list(_diagrams(source, rows, metrics)),
        maps_kept=found is not None, unverified=stamp.UNVERIFIED, dirty=stamp.DIRTY, limit=EER_LIMIT,
        nav=source.nav, footer=source.footer, here="", cluster=source.cluster,
        explorer=f"{EXPLORER[1]}#s={board.slug}" if found is not None and EXPLORER in source.nav else "",
        downloads="downloads/index.html",
    )  # fmt: skip


def _families(board: content.Board) -> list[tuple[str, list[tuple[int, content.Column]]]]:
    """The columns by what they ask, each with its place."""
    found: dict[str, list[tuple[int, content.Column]]] = {}
    for i, column in enumerate(board.columns):
        found.setdefault(content.FAMILIES.get(column.family, column.family), []).append((i, column))
    return list(found.items())


def _diagrams(source: Source, rows: pd.DataFrame, metrics: Sequence[str]) -> Iterator[Diagram | str]:
    """A critical-difference diagram a metric, or the sentence that says why there is none."""
    for metric in metrics:
        part = rows[rows["metric"].eq(metric)]
        texts = [c for c in part.columns if isinstance(part[c].dtype, pd.CategoricalDtype)]
        part = part.assign(**{c: part[c].astype(str) for c in texts})
        if not part["status"].eq("ok").any():
            continue
        for found in compare.rankings(part, metric, cluster=source.cluster):
            if found.friedman is None:
                yield (
                    f"No ranks by {metric}: they need three methods and {compare.FEWEST_BLOCKS} {source.cluster}s in which "
                    f"every method has a value; here are {len(found.methods)} and {found.complete}."
                )
            else:
                yield critical_difference(found.friedman, found.methods, metric=metric, unit=source.cluster)


def _index(source: Source, out: Path) -> tuple[str, list[Path]]:
    """The first page, and the pictures on it."""
    from xaibench.site import pictures

    try:
        example, why = pictures.write(source, out), ""
    except XaibenchError as error:
        # Its text may name folders of this machine: said here, not on the page.
        warnings.warn(f"the first page has no example: {error}", XaibenchWarning, stacklevel=2)
        example, why = None, "No example is shown: its recordings or maps could not be read where this site was made."
    page = shell.render(
        "index.html.j2", title="xaibench: which attribution method finds what a vocoder changed?", boards=source.boards,
        example=example, why=why, nav=source.nav, footer=source.footer, here="Boards", unverified=stamp.UNVERIFIED,
        dirty=stamp.DIRTY,
    )  # fmt: skip
    return page, [out / panel.file for panel in example.panels] if example else []
