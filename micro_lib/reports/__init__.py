"""Tables, pictures and verdicts of each experiment, from what its runs have stored."""
