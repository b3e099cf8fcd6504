"""The entries of the catalogue, a file a family; `xaibench.metrics.catalog` puts them together. None imports torch."""
