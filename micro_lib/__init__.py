"""Training segmentation of micrographs when labels are scarce: parametric, joint and adaptation methods."""
