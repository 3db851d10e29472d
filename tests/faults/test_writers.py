"""Everything that is written goes through storage: no other module writes a file by itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import isoflop

SOURCES = Path(isoflop.__file__).parent

EXCEPTIONS = {
    ("checkpoint.py", "save_file"): "into a folder that commit_folder syncs, hashes and renames",
    ("checkpoint.py", "write_text"): "into that folder, too",
    ("data/store.py", "write_text"): "into a folder that commit_folder syncs, hashes and renames",
    ("data/tokenizer.py", "write_bytes"): "into one whose files are linked into that folder",
    ("data/tables.py", "open"): "into that folder, too",
    ("data/ids/build.py", "open"): "into that folder, too",
    ("data/ids/build.py", "unlink"): "of no use there afterwards",
    ("data/store.py", "open"): "into that folder, too",
    ("data/text.py", "open"): "beside that folder; synced before anything is built on it",
    ("data/text.py", "link"): "from the one folder to the other",
    ("data/splitting.py", "TemporaryFile"): "of no use afterwards",
    ("check/runs.py", "TemporaryDirectory"): "where a run lives that is killed and thrown away",
    ("check/runs.py", "mkdir"): "in that folder",
    ("check/runs.py", "write_text"): "its corpus",
    ("fit/surfaces/descent.py", "copy"): "of an object, in memory",
    ("sweep/local/worker.py", "os.open"): "the run's log.txt, which other libraries print to",
    ("sweep/cluster.py", "open"): "what a task of Ray prints",
    ("sweep/cluster.py", "touch"): "where a job of Slurm will print",
    ("runs/claim.py", "os.open"): "who holds a lease: of no use after a power cut",
    ("runs/claim.py", "NamedTemporaryFile"): "whose time is the file system's",
    ("training/memory.py", "write_text"): "a switch of the kernel below /proc",
    ("data/preparation.py", "FileLock"): "an empty file that the kernel locks",
    ("bench/fits.py", "TemporaryDirectory"): "where tables live that are fitted and thrown away",
    ("bench/fits.py", "to_csv"): "into that folder",
    ("bench/machine.py", "write_text"): "a switch of the kernel below /proc",
    ("interop/dataset.py", "to_parquet"): "into memory",
    ("interop/exporting.py", "save_file"): "into a folder that commit_folder syncs and renames",
    ("interop/exporting.py", "write_text"): "into that folder",
    ("interop/exporting.py", "chmod"): "of a file in it",
    ("tracking/trackers.py", "mkdir"): "where a tracker keeps its own files",
    ("tracking/trackers.py", "open"): "a copy of what metrics.jsonl holds, for other programs",
}
"""Calls that may write elsewhere than in storage, and why."""

WRITERS = """
write_text write_bytes touch mkdir unlink rmdir rename replace symlink_to hardlink_to symlink link
chmod truncate ftruncate makedirs renames remove removedirs move copy copy2 copyfile copytree rmtree
save savez savetxt save_file serialize_file tofile dump savefig to_csv to_parquet to_pickle to_excel
to_feather to_hdf to_html FileLock mkstemp mkdtemp NamedTemporaryFile TemporaryDirectory
TemporaryFile
"""
"""Names of functions and methods that write, whatever they belong to."""

PURE = {
    # Of text and of values; files have methods of the same names with other arguments.
    "replace": lambda call: (
        not named(call.func, "os") and (len(call.args) != 1 or bool(call.keywords))
    ),
    "copy": lambda call: not call.args,
    "remove": lambda call: isinstance(call.func, ast.Attribute) and not named(call.func, "os"),
    "truncate": lambda call: not named(call.func, "os"),
    "save": lambda call: named(call.func, "checkpoint"),
    "dump": lambda call: len(call.args) == 1 and not call.keywords,
    "to_csv": lambda call: not call.args and not any(k.arg == "path_or_buf" for k in call.keywords),
}
"""For names that mostly do something else: which calls of them write nothing."""


def named(function: ast.expr, owner: str) -> bool:
    """Whether a function is looked up in the module `owner`."""
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == owner
    )


def literal(call: ast.Call, place: int) -> str:
    """The mode that `open` is called with; what cannot be read counts as writing."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    given += call.args[place : place + 1]
    if not given:
        return "r"
    if isinstance(given[0], ast.Constant):
        return str(given[0].value)
    # A method's first argument is a mode if it says so; classes of ours open folders.
    return "w" if place or getattr(given[0], "id", "") == "mode" else "r"


def writing_calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Name and line of every call that may write, create, rename or delete a file."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        if name == "open" and named(function, "os"):
            flags = ast.dump(node.args[1]) if len(node.args) > 1 else "O_WRONLY"
            writes = any(flag in flags for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "'flags'"))
            if writes and "devnull" not in ast.dump(node.args[0]):
                yield "os.open", node.lineno
        elif name == "open":
            place = 0 if isinstance(function, ast.Attribute) else 1
            mode = literal(node, place)
            if set(mode) <= set("rwxabt+") and set(mode) & set("wxa+"):
                yield "open", node.lineno
        elif name not in WRITERS.split() or named(function, "storage"):
            continue
        elif name not in PURE or not PURE[name](node):
            yield name, node.lineno


def found() -> dict[tuple[str, str], list[int]]:
    calls: dict[tuple[str, str], list[int]] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        module = path.relative_to(SOURCES).as_posix()
        if module == "storage.py":
            continue
        for name, line in writing_calls(ast.parse(path.read_text())):
            calls.setdefault((module, name), []).append(line)
    return calls


def test_only_storage_writes() -> None:
    calls = found()
    strangers = {key: lines for key, lines in calls.items() if key not in EXCEPTIONS}
    assert strangers == {}, "write through isoflop.storage, or name the exception and why"
    assert set(EXCEPTIONS) <= set(calls), "an exception that is none any more"


@pytest.mark.parametrize(
    "code",
    [
        "Path('x').write_text('')",
        "open('x', 'w')",
        "open('x', mode)",
        "open('x', mode='ab')",
        "path.open('r+')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "os.open(path, flags)",
        "np.save(path, array)",
        "table.to_csv(path)",
        "os.replace(a, b)",
        "path.replace(target)",
        "os.remove(path)",
        "shutil.rmtree(path)",
        "json.dump(value, file)",
        "tempfile.mkstemp()",
    ],
)
def test_a_writer_is_found(code: str) -> None:
    assert list(writing_calls(ast.parse(code)))
