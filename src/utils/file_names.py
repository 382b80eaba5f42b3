"""Names for files and folders that are made of whatever a user wrote."""

from __future__ import annotations

import hashlib

# A file system takes 255 bytes; what is left is for endings, digests and the names of temporary files.
MAX_BYTES = 180


def shortened(name: str, limit: int = MAX_BYTES) -> str:
    """Return ``name``, or the beginning of a longer one and a digest of the whole: at most ``limit`` bytes."""
    encoded = name.encode()
    if len(encoded) <= limit:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: limit - 9].decode(errors='ignore')}-{digest}"
