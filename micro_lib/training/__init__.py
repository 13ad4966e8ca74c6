"""Recipes: how networks are trained, and the experiments that compare them."""
