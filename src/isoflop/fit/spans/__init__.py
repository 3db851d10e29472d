"""Scaling studies: losses by span of positions, their projections, and gaps between variants."""
