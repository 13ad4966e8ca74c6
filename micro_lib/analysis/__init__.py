"""Measurements and statistics on masks and scores (no torch)."""
