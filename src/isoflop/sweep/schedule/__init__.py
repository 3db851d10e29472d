"""Which run goes next, what becomes of each, and what is seen of it."""
