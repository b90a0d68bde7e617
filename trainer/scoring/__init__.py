"""`edgegan-score`: how good a model's pictures are, from the exported file alone, without torch."""
