"""The data sets of the field: one file each, from the folder layout that its authors publish to a manifest."""
