"""Compare runs on one page: ``python compare.py <run folder> ... [key=value ...]``.

Writes a single HTML file that needs no network: a table of the runs, the differences of their configurations, curves,
pictures, and memory and time against quality. Beside run folders it takes folders of runs (``outputs/ct_postproc``),
the results of a paper table (``experiments/irevnet_lab``) and single summaries.

    output=outputs/compare.html   the file to write
    images=all                    all | test (without those of the epochs) | none
"""

from __future__ import annotations

import sys
from pathlib import Path

from src.utils.command_line import run_command_line
from src.utils.errors import ConfigError

OPTIONS = {"output": "outputs/compare.html", "images": "all"}


def compare(paths: list[str], output: str, images: str) -> Path:
    """Write the page of the runs that ``paths`` name, say what is on it, and return where it is.

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
    print(f"{len(sources.runs)} run(s) on a page of {size:.1f} MB, of which pictures {pictures:.1f} MB")
    print(f"file: {output}")
    return Path(output)


def parse(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the paths and the options of a command line; ``--output x`` and ``--output=x`` mean ``output=x``.

    Raises:
        ConfigError: for arguments that do not fit, naming the nearest option.
    """
    options, paths = dict(OPTIONS), []
    rest = iter(arguments)
    for argument in rest:
        key, equals, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and not equals:
            value = next(rest, "")
        if key in options and (equals or argument.startswith("--")):
            options[key] = value
        elif argument.startswith("-") or (equals and not Path(argument).exists()):
            raise ConfigError(_unknown(key))
        else:
            paths.append(argument)
    _check(paths, options)
    return paths, options


def _unknown(key: str) -> str:
    from src.utils.errors import did_you_mean

    return f"expected a path or an option, got {key!r}{did_you_mean(key, OPTIONS)}"


def _check(paths: list[str], options: dict[str, str]) -> None:
    from src.compare.pictures import CHOICES

    if not paths:
        raise ConfigError("expected the folder of at least one run, got none")
    if options["images"] not in CHOICES:
        raise ConfigError(f"expected images to be one of {', '.join(CHOICES)}, got {options['images']!r}")
    if not options["output"].endswith(".html"):
        raise ConfigError(f"expected output to be a file <name>.html, got {options['output']!r}")


def _picture_bytes(page: str) -> int:
    """Bytes of the data URIs; each ends at the quotation mark of its JSON string."""
    return sum(part.index('"') for part in page.split("data:image/")[1:])


def _run(arguments: list[str]) -> None:
    paths, options = parse([a for a in arguments if a.lower() != "debug=true"])
    compare(paths, **options)


def main() -> None:
    """Run the command line."""
    run_command_line(__doc__, _run)


if __name__ == "__main__":
    main()
