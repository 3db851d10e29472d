"""From a corpus to tokens: reading, splitting by document, tokenising, batches by step."""

from isoflop.data.batches import Batches
from isoflop.data.corpora import Corpus, locate
from isoflop.data.preparation import (
    Preparing,
    Tell,
    describe,
    prepare,
    prepared,
    train_tokens,
)
from isoflop.data.store import SplitName, TokenSplit, TokenStore
from isoflop.data.tokenizer import BpeTokenizer, ByteTokenizer, TextStream, Tokenizer
from isoflop.data.windows import WholeWindows, document_windows, evaluation_windows
