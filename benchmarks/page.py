"""Tables that benchmarks write into the docs, between two comments that carry their name."""

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def put(page: str, name: str, text: str) -> None:
    """Replaces what stands between `<!-- name: begin -->` and `<!-- name: end -->` in docs/page."""
    path, begin, end = DOCS / page, f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, _, rest = path.read_text().partition(begin)
    path.write_text(f"{before}{begin}{text.rstrip()}\n{end}{rest.partition(end)[2]}")
