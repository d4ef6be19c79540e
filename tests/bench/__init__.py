"""How fast, how small: figures for reading, told as ratios."""
