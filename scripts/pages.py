"""Pages with a part that a script writes, between two marks."""


def with_part(page: str, begin: str, part: str, end: str) -> str:
    """Puts the part between the marks; ValueError where the page lacks one."""
    return page[: page.index(begin) + len(begin)] + part + page[page.index(end) :]
