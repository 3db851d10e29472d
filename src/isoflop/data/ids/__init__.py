"""Corpora that are token ids already: files that others made, read where they lie."""

from isoflop.data.ids.files import DTYPES, SUFFIXES, IdFile, PointedTokens, Stretch, id_file
