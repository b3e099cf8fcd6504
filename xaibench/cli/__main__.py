"""`python -m xaibench.cli`."""

from xaibench.cli.app import main

main()
