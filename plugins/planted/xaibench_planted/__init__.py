"""A planted truth: a change whose place is known, pairs that have it, and a countermeasure that hears nothing else."""
