"""From a resource to a Run; defaults and bounds come from the schema, the rest from the method.

`parse` is the way in; the operator's is skew.py, which takes resources of other releases as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from maft.spec import RunSpec, StorageSpec, immutable_spec_json
from maft_operator.spec.methods import applied
from maft_operator.spec.schema import BadSpec, checked

ARGUMENT_BYTES = 128 * 1024 - 1 - len("--spec=")  # of the value of a flag (Linux, MAX_ARG_STRLEN, which counts a last zero)


@dataclass(frozen=True, slots=True)
class Run:
    """One resource."""

    namespace: str
    name: str
    spec: RunSpec
    """With what its method changes (methods.py)."""

    @property
    def key(self) -> str:
        """Returns NAMESPACE/NAME, also the run's prefix in the store."""
        return f"{self.namespace}/{self.name}"

    @property
    def group(self) -> str:
        """Returns NAMESPACE/NAME of the group whose questions and calls it shares; empty without one."""
        return f"{self.namespace}/{self.spec.group}" if self.spec.group else ""


def parse(resource: Mapping[str, Any]) -> Run:
    """Reads the resource; BadSpec with one line about the first thing wrong."""
    return converted(checked(resource))


def converted(whole: Mapping[str, Any]) -> Run:
    """Makes a Run of a resource with its defaults filled in; BadSpec if it has not the shape of one."""
    metadata = whole["metadata"]
    try:
        spec = applied(msgspec.convert(whole["spec"], RunSpec))
    except msgspec.ValidationError as error:
        raise BadSpec(f"spec: {error}") from None
    _fits_an_argument(spec)
    return Run(metadata.get("namespace") or "default", metadata["name"], spec)


def _fits_an_argument(spec: RunSpec) -> None:
    size = len(immutable_spec_json(spec).encode())
    if size > ARGUMENT_BYTES:
        raise BadSpec(
            f"spec: {size} bytes as JSON, and an argument of a program holds {ARGUMENT_BYTES};"
            " shorten the prompts, task.subjects or inference.extraArgs"
        )


def store_url(storage: StorageSpec | None) -> str:
    """Writes the store of a resource as the URL that programs take; empty without one."""
    if storage is None:
        return ""
    options = {name: value for name, value in (("endpoint", storage.endpoint), ("region", storage.region)) if value}
    prefix = f"/{quote(storage.prefix.strip('/'))}" if storage.prefix else ""
    return f"s3://{storage.bucket}{prefix}" + (f"?{urlencode(options)}" if options else "")
