"""Names for files and folders that are made of whatever a user wrote."""

from __future__ import annotations

import hashlib
import re

# A file system takes 255 bytes; what is left is for endings, digests and the names of temporary files.
MAX_BYTES = 180


def shortened(name: str, limit: int = MAX_BYTES) -> str:
    """Return ``name``, or the beginning of a longer one and a digest of the whole: at most ``limit`` bytes."""
    return name if len(name.encode()) <= limit else _with_digest(name, name, limit)


def plain_name(name: str, limit: int = MAX_BYTES) -> str:
    """Return ``name``, or one with a digest where it is too long or has more than ASCII letters, digits and ``._-``."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "-", name)
    return name if plain == name and len(name) <= limit else _with_digest(plain, name, limit)


def _with_digest(text: str, name: str, limit: int) -> str:
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{text.encode()[: limit - 9].decode(errors='ignore')}-{digest}"
