"""Seeds, profiles, run records and class maps: what every other room stands on."""
