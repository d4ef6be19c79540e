"""How fast, how small: figures for reading, as ratios."""
