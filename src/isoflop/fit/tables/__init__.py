"""Tables of runs: as records give them, and as people publish them in any usual form."""
