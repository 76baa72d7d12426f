"""Tables as kubectl prints them, from the Tables that the API server makes of a kind's printer columns. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from maft_operator.cluster.fields import count, part, parts, text
from maft_operator.printable import on_one_line
from maft_operator.spec.schema import Json

_GAP = 3  # spaces between two columns
_LEAST = 6  # of a column and its gap


@dataclass(frozen=True, slots=True)
class Row:
    """One object. thing: what came of it, its metadata at least."""

    cells: tuple[str, ...]
    thing: Json

    @property
    def name(self) -> str:
        """Returns the object's name."""
        return text(self.thing, "metadata", "name")

    @property
    def namespace(self) -> str:
        """Returns the object's namespace."""
        return text(self.thing, "metadata", "namespace")


@dataclass(frozen=True, slots=True)
class Table:
    """What one answer holds. columns: names with their priority; 0 is always shown. They come with the first answer of a watch."""

    columns: tuple[tuple[str, int], ...]
    rows: tuple[Row, ...]


def read(answer: Json) -> Table:
    """Reads an answer of the API server; a row that has no cells is left out."""
    columns = tuple((_cell(text(column, "name")), count(column, "priority")) for column in parts(answer, "columnDefinitions"))
    rows = [(row.get("cells"), part(row, "object")) for row in parts(answer, "rows")]
    return Table(columns, tuple(Row(tuple(map(_cell, cells)), thing) for cells, thing in rows if isinstance(cells, list)))


@dataclass(slots=True)
class Printed:
    """A table that grows: its header comes once, and columns only become wider."""

    wide: bool = False
    """All columns, not only those of priority 0."""
    namespaces: bool = False
    """A column of namespaces before the others."""
    _columns: tuple[tuple[str, int], ...] = ()
    _widths: list[int] = field(default_factory=list)

    def lines(self, table: Table) -> Iterator[str]:
        """Writes the rows; before the first ones the header."""
        rows = []
        if table.columns and not self._columns:
            self._columns = table.columns
            rows.append(self._chosen([name.upper() for name, _ in self._columns], "NAMESPACE"))
        rows += [self._chosen(row.cells, row.namespace) for row in table.rows]
        self._widths = [max(widths) for widths in zip(*[map(len, row) for row in rows], self._widths or [0] * 99, strict=False)]
        for row in rows:
            yield "".join(f"{cell:<{max(_LEAST, width + _GAP)}}" for cell, width in zip(row, self._widths, strict=False)).rstrip()

    def _chosen(self, cells: Sequence[str], namespace: str) -> list[str]:
        shown = [cell for cell, (_, priority) in zip(cells, self._columns, strict=False) if self.wide or not priority]
        return [_cell(namespace), *shown] if self.namespaces else shown


def _cell(value: object) -> str:
    """One line of what can be printed: whoever writes a status does not move another's cursor."""
    return "" if value is None else on_one_line(str(value))
