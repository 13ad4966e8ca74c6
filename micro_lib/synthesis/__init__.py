"""Parametric micrographs: parameter space to table to (image, mask) (no torch)."""
