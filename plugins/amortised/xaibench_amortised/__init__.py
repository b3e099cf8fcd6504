"""Attributors that were trained beforehand to answer at once: FastSHAP (Jethani et al., ICLR 2022, arXiv 2107.07436)."""
