"""The part of a README that reproduce.py writes, from ``<!-- results/<variant> -->`` to ``<!-- end of results -->``."""

import re
from pathlib import Path

from src.utils.files import write_text


def fill(readme: Path, variant: str, excerpt: str) -> bool:
    """Replace the text between the two comments; return whether the README has them for this variant."""
    text = readme.read_text(encoding="utf-8")
    start = f"<!-- results/{variant} -->\n"
    pattern = re.compile(f"(?<={re.escape(start)}).*?(?=<!-- end of results -->)", re.DOTALL)
    if pattern.search(text) is None:
        return False
    write_text(readme, pattern.sub(lambda _: excerpt, text))
    return True
