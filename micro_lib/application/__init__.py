"""What a user runs: notebooks, folders of micrographs, figures, tables, sweeps."""
