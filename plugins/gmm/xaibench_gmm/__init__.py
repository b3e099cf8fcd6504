"""A countermeasure that offers scores only: LFCC and two Gaussian mixtures, the baseline of ASVspoof."""
