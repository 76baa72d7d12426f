"""Which files of which buckets the live page may show: of reports, and nothing else. Pure.

The page asks whether it has a report to link to, the program that holds the key of the buckets whether it may read a file.
"""

import re
from dataclasses import dataclass

OF_A_RUN, OF_A_COMPARISON = "report", "compare"
INDEX = "index.html"
# What `maft.report` and `maft.compare` write, below a folder of each.
FILES = {
    OF_A_RUN: (INDEX, "report.json"),
    OF_A_COMPARISON: (INDEX, "compare.json", "table.csv", "table.md", "table.txt"),
}
_PLACE = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/]+)*")


@dataclass(frozen=True, slots=True)
class Readable:
    """endpoint: of the S3 server, empty for AWS; places: BUCKET or BUCKET/PREFIX."""

    endpoint: str
    places: tuple[str, ...]

    def folder(self, endpoint: str, bucket: str, prefix: str, key: str, kind: str) -> str:
        """Returns BUCKET/…/ of the report of NAMESPACE/NAME, where a resource's storage says that it lies; empty where that may not
        be read."""
        parts = (bucket, prefix.strip("/"), key, kind)
        folder = "/".join(part for part in parts if part)
        same = endpoint.rstrip("/") == self.endpoint.rstrip("/")
        return f"{folder}/" if same and self.allows(f"{folder}/{INDEX}") else ""

    def allows(self, path: str) -> bool:
        """Tells whether BUCKET/KEY is a file of a report below one of the places."""
        bucket_and_key, _, name = path.rpartition("/")
        above, _, folder = bucket_and_key.rpartition("/")
        is_file = above.count("/") > 1 and name in FILES.get(folder, ())  # BUCKET/NAMESPACE/NAME at least
        return is_file and is_plain(path) and any(path.startswith(f"{place}/") for place in self.places)


def is_place(text: str) -> bool:
    """Tells whether it is BUCKET or BUCKET/PREFIX."""
    return bool(_PLACE.fullmatch(text)) and is_plain(text)


def is_plain(path: str) -> bool:
    """Tells whether no part of the path is one that servers or browsers resolve or drop."""
    return path.isprintable() and not {"", ".", ".."} & set(path.split("/"))
