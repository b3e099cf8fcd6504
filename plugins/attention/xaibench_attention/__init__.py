"""Attributors for countermeasures with a transformer: attention rollout, GATR and AttnLRP."""
