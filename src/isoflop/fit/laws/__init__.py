"""How the optimum grows with compute: power laws, through minima or training curves."""
