"""Files that are whole or absent, and their hashes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of the data."""
    return hashlib.sha256(data).hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write one file as ``write_together`` writes several."""
    write_together({path: data})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files so that a reader, or a run killed at any moment, sees old content or new, never a part.

    All of them are written beside their targets first and then put in place in the given order, so a full disk leaves
    every old file untouched.

    Raises:
        OSError: a folder cannot be written, or the disk is full.
    """
    temporary: dict[Path, str] = {}
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary[path] = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary[path], 0o644)
        for path in contents:
            os.replace(temporary.pop(path), path)
    finally:
        for left in temporary.values():
            Path(left).unlink(missing_ok=True)


def require_writable(out: Path) -> None:
    """Raise ``ValueError`` unless files can be written below the folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / ".writable", b"")
        (out / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"out must be a folder that can be written, got {out}: {error.strerror}") from None
