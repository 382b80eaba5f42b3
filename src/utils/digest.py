"""A short name for any content."""

import hashlib
import json
from typing import Any


def digest(content: Any, length: int = 8) -> str:
    """Return hexadecimal digits that differ for different contents.

    Args:
        content: what JSON can hold; other objects count by their text.
        length: number of digits.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:length]
