"""Numbers that tell how good a generator is."""
