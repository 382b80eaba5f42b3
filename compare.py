"""Compare runs on one page: ``python compare.py <run folder> ... [key=value ...]``.

Writes a single HTML file that needs no network: a table of the runs, the differences of their configurations, curves,
pictures, and memory and time against quality. Paths may be run folders, folders of runs (``outputs/ct_postproc``), the
results of a paper table (``experiments/irevnet_lab``) and single summaries.

    output=outputs/compare.html   the file to write
    images=all                    all | test (no pictures of epochs) | none
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src.utils.command_line import parse, run_command_line
from src.utils.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Options:
    """Options of compare.py; the text above explains them, and ``debug`` shows the traceback of an error."""

    output: str = "outputs/compare.html"
    images: Literal["none", "test", "all"] = "all"
    debug: bool = False


def compare(paths: list[str], output: str, images: str) -> Path:
    """Write the page of the runs in ``paths``, print what is on it, and return its path.

    Raises:
        ValueError: for a path without a run, or a damaged file.
    """
    from src.compare.page import build_page
    from src.compare.sources import find_sources
    from src.utils.files import write_text

    sources = find_sources(paths)
    page = build_page(sources, images)
    write_text(output, page)
    for note in sources.notes:
        print(f"note: {note}", file=sys.stderr)
    size, pictures = len(page.encode()) / 1e6, _picture_bytes(page) / 1e6
    print(f"wrote {len(sources.runs)} run(s) on a page of {size:.1f} MB, {pictures:.1f} MB of it pictures")
    print(f"file: {output}")
    return Path(output)


def read_arguments(arguments: list[str]) -> tuple[list[str], Options]:
    """Return the paths and the options of a command line.

    Raises:
        ConfigError: for arguments that do not fit, naming the nearest option.
    """
    options, paths = parse(Options, arguments)
    for path in paths:
        key, equals, _ = path.partition("=")
        if equals and not Path(path).exists():
            raise ConfigError(f"expected a path or an option, got {key!r}{did_you_mean(key, vars(options))}")
    if not paths:
        raise ConfigError("expected at least one run folder, got none")
    if not options.output.endswith(".html"):
        raise ConfigError(f"expected output to be a file <name>.html, got {options.output!r}")
    return paths, options


def _picture_bytes(page: str) -> int:
    """Return the bytes of the data URIs; each ends at the quotation mark of its JSON string."""
    return sum(part.index('"') for part in page.split("data:image/")[1:])


def _run(arguments: list[str]) -> None:
    paths, options = read_arguments(arguments)
    compare(paths, options.output, options.images)


def main() -> None:
    """Run the command line."""
    run_command_line(lambda: __doc__, _run)


if __name__ == "__main__":
    main()
