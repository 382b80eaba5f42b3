"""Files that end with a digest of their content, so that a single flipped bit is found before they are used.

Other readers of zip archives (checkpoints, ``.npz``) and arrays (``.npy``) ignore the digest.
"""

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
    """Append the digest of the content of ``file``, which is open for writing and reading."""
    length = file.seek(0, 2)
    file.seek(0)
    digest = _digest(file, length)
    file.seek(0, 2)
    file.write(PREFIX + digest + b"\n")


def has_seal(path: Path) -> bool:
    """Return whether a file ends with a seal, right or wrong; a file that was cut has none."""
    with path.open("rb") as file:
        return _read_seal(file) is not None


def check_seal(path: Path) -> bool:
    """Compare a file with its seal; return False for a file without one.

    Raises:
        ValueError: if they do not agree.
    """
    with path.open("rb") as file:
        expected = _read_seal(file)
        if expected is None:
            return False
        length = file.tell() - SEAL_LENGTH
        file.seek(0)
        digest = _digest(file, length)
    if digest != expected:
        raise ValueError(f"expected the sha256 {expected.decode()}, got {digest.decode()}: the file is damaged")
    return True


def check_archive(path: Path) -> None:
    """Check a zip archive of stored records by its seal, or by the records' CRCs if it has none.

    Raises:
        Exception: any that zipfile raises; ValueError for an archive that is damaged, or claims records larger than
            itself, so that reading them could exhaust the memory.
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
            # Otherwise the file may end with a damaged seal.
            if not file.read().startswith(END_OF_ARCHIVE):
                raise ValueError("expected a zip archive followed by a seal or by nothing, got other bytes after it")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"expected the CRC of record {damaged}, got another one: the file is damaged")


def _read_seal(file: IO[bytes]) -> bytes | None:
    """Return the digest at the end of a file, and leave the position there."""
    file.seek(max(file.seek(0, 2) - SEAL_LENGTH, 0))
    found = re.fullmatch(re.escape(PREFIX) + rb"([0-9a-f]{64})\n", file.read())
    return None if found is None else found[1]


def _digest(file: IO[bytes], length: int) -> bytes:
    """Return the sha256 of the next ``length`` bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    while length > 0 and (chunk := file.read(min(length, CHUNK))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest().encode()
