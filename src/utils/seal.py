"""Files that end with a digest of themselves: a single flipped bit is found before anything is made of them.

zip archives (checkpoints, ``.npz``) and arrays (``.npy``) are read as before, since their readers ignore what follows.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path
from typing import IO

PREFIX = b"\nsha256 "
SEAL_LENGTH = len(PREFIX) + 2 * hashlib.sha256().digest_size + 1
CHUNK = 1 << 20
END_OF_ARCHIVE, END_LENGTH = b"PK\x05\x06", 22


def seal(file: IO[bytes]) -> None:
    """Append the digest of what has been written to ``file``, which is open for reading too."""
    length = file.seek(0, 2)
    file.seek(0)
    digest = _digest(file, length)
    file.seek(0, 2)
    file.write(PREFIX + digest + b"\n")


def has_seal(path: Path) -> bool:
    """Whether a file ends with a seal, right or wrong; a version before the seals, or a file that was cut, has none."""
    with path.open("rb") as file:
        return _read_seal(file) is not None


def check_seal(path: Path) -> bool:
    """Hold a file against its seal; False for a file without one, which a version before the seals has written.

    Raises:
        ValueError: if they do not fit.
    """
    with path.open("rb") as file:
        expected = _read_seal(file)
        if expected is None:
            return False
        length = file.tell() - SEAL_LENGTH
        file.seek(0)
        digest = _digest(file, length)
    if digest != expected:
        raise ValueError(f"expected content of sha256 {expected.decode()}, got {digest.decode()}: the file is damaged")
    return True


def check_archive(path: Path) -> None:
    """Check a zip archive of stored records: by its seal, or without one by the records' CRCs.

    Raises:
        Exception: whatever zipfile raises, and ValueError for an archive that is damaged, or has records larger than
            itself, which would be memory that a lie asks for.
    """
    sealed = check_seal(path)
    with zipfile.ZipFile(path) as archive:
        size, records = path.stat().st_size, sum(record.file_size for record in archive.infolist())
        if records > size:
            raise ValueError(f"expected records of at most {size} bytes, the file's size, got {records}")
        if sealed:
            return
        with path.open("rb") as file:
            file.seek(size - END_LENGTH)
            # Else what follows may be a damaged seal.
            if not file.read().startswith(END_OF_ARCHIVE):
                raise ValueError("expected a zip archive with a seal or nothing behind it, got something else there")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"expected the record {damaged} with its CRC, got another: the file is damaged")


def _read_seal(file: IO[bytes]) -> bytes | None:
    """The digest that a file ends with; the position is the file's end afterwards."""
    file.seek(max(file.seek(0, 2) - SEAL_LENGTH, 0))
    found = re.fullmatch(re.escape(PREFIX) + rb"([0-9a-f]{64})\n", file.read())
    return None if found is None else found[1]


def _digest(file: IO[bytes], length: int) -> bytes:
    """The sha256 of the next ``length`` bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    while length > 0 and (chunk := file.read(min(length, CHUNK))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest().encode()
