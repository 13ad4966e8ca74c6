"""Real micrographs: reading, checking, packs, splits, tiles and augmentation."""
