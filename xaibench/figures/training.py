"""What a training did, by epoch."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from xaibench.errors import XaibenchError
from xaibench.figures import style
from xaibench.figures.style import BLUE, GREY, VERMILLION


def training_curves(history: Path, out: Path) -> Path:
    """Loss and development EER by epoch, the best epoch marked. `history`: csv with epoch, loss, dev_eer, rate, seconds.

    out: a file; its ending says which format. Raises XaibenchError for a missing or empty table, or one without these
    columns.
    """
    path = Path(history)
    if not path.is_file():
        raise XaibenchError(f"{path}: no such table; `xaibench train` writes history.csv")
    table = pd.read_csv(path)
    missing = [c for c in ("epoch", "loss", "dev_eer") if c not in table.columns]
    if missing or table.empty:
        raise XaibenchError(f"{path}: {'lacks ' + ', '.join(missing) if missing else 'has no epochs'}; is it a history.csv?")
    with style.style():
        figure, (left, right) = style.columns_of_axes(7.2, 2.6, columns=2)
        for axes, column, label, colour, scale in (
            (left, "loss", "training loss", BLUE, 1), (right, "dev_eer", "development EER (%)", VERMILLION, 100)
        ):  # fmt: skip
            axes.plot(table["epoch"], table[column] * scale, color=colour, linewidth=1.3, marker="o", markersize=2.5)
            axes.set(xlabel="epoch", ylabel=label)
            axes.set_ylim(bottom=0)
            axes.margins(x=0.03)
            axes.locator_params(axis="x", integer=True)
            style.quiet(axes)
        if table["dev_eer"].notna().any():
            best = table.loc[table["dev_eer"].idxmin()]
            right.axvline(best["epoch"], color=GREY, linewidth=0.8, linestyle=":")
            right.set_title(f"best: {best['dev_eer']:.1%} at epoch {best['epoch']:.0f}", loc="right")
        figure.tight_layout(w_pad=2.5)
        return style.save_as(figure, Path(out))
