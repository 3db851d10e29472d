"""Curves of one budget: their runs moved to it, their minima, and how sure these are."""
