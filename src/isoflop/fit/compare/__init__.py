"""Variants held against each other: at a budget, on their surfaces, and in words."""
