"""`python -m xaibench_amortised train --cm lcnn --out FILE`: train a network for `fast-shap`, and `measure` one."""

from __future__ import annotations

import argparse
import logging
from dataclasses import fields
from pathlib import Path


def main() -> None:
    """The command line; every setting of `training.Spec` is an option of `train`."""
    import torch

    import xaibench
    from xaibench import registry
    from xaibench_amortised.measuring import measure
    from xaibench_amortised.training import Spec, train

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m xaibench_amortised", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in {"train": "train a network", "measure": "compare it with KernelSHAP of many samples"}.items():
        command = commands.add_parser(name, help=about)
        command.add_argument("--cm", required=True, help="countermeasure")
        command.add_argument("--checkpoint", help="its weights (safetensors) instead of the shipped")
        command.add_argument("--data", default="minivoc", help="data sets, separated by commas")
        command.add_argument("--root", action="append", default=[], help="NAME=FOLDER for a data set that is not embedded")
    settings = {f.name: f for f in fields(Spec)}
    for name, field in settings.items():
        commands.choices["train"].add_argument(
            f"--{name.replace('_', '-')}", type=type(field.default), default=field.default
        )
    commands.choices["train"].add_argument(
        "--out", required=True, type=Path, help="file to write, .safetensors, with a card"
    )
    commands.choices["measure"].add_argument("--weights", required=True, type=Path, help="what `train` wrote")
    commands.choices["measure"].add_argument("--excerpts", type=int, default=40, help="excerpts of the eval split")
    commands.choices["measure"].add_argument("--masks", type=int, default=2000, help="coalitions an excerpt")
    asked = vars(parser.parse_args())

    roots = dict(r.split("=", 1) for r in asked["root"])
    corpora = [registry.open_corpus(n, roots.get(n)) for n in asked["data"].split(",")]
    cm = xaibench.countermeasure(asked["cm"], checkpoint=asked["checkpoint"], device="cpu").module
    cm = cm.to(memory_format=torch.channels_last)
    say = logging.getLogger("xaibench_amortised").info
    if asked["command"] == "train":
        say(train(asked["cm"], cm, corpora, asked["out"], Spec(**{n: asked[n] for n in settings}), report=say))
    else:
        table = measure(cm, corpora, asked["weights"], excerpts=asked["excerpts"], masks=asked["masks"])
        say(table.to_string(float_format="%.3f"))


if __name__ == "__main__":
    main()
