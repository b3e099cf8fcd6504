"""The processing chain of minivoc: it lives with xaibench (`xaibench.datasets.chain`), which makes pairs by it too."""

from xaibench.datasets.chain import CEILING, filtered, finish, prepare

__all__ = ["CEILING", "filtered", "finish", "prepare"]
