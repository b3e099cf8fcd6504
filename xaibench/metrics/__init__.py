"""Scores of attributions and of countermeasures. `catalog` is the table to read first."""
