"""Writes docs/resource.md from crds/multiagentfinetunes.yaml: every field with type, default, bounds and description."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maft_operator.spec.schema import openapi

ROOT = Path(__file__).parents[1]
HEAD = """# The resource: MultiAgentFinetune

`apiVersion: maft.dev/v1alpha1`, `kind: MultiAgentFinetune`, short name `maft`. Made from `crds/multiagentfinetunes.yaml` by
`scripts/resource_reference.py`; defaults, bounds and rules stand there and nowhere else. `maft validate FILE` checks a resource as
the API server would, and every command reads files and `--set` as kubectl does: `1e3` and `1024.0` are whole numbers, `017` is
15, `yes` is true, `1:30` a text. It refuses a key that is there twice, and `null` in place of a value. Fields used on a cluster
only are accepted and ignored by `maft run`.

| field | type | default | bounds | meaning |
|---|---|---|---|---|
"""


def rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    """One table row per field, sections before their fields."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        cells = (f"`{here}`", kind(field), default(field, required=name in required), bounds(field), text(field))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield from rows(field, here)


def kind(field: dict[str, Any]) -> str:
    """Its type in a word."""
    return f"list of {field['items']['type']}" if field["type"] == "array" else str(field["type"])


def default(field: dict[str, Any], *, required: bool) -> str:
    """Its default as YAML would have it."""
    if required:
        return "**required**"
    return f"`{json.dumps(field['default'])}`" if field.get("default", {}) != {} else ""


def bounds(field: dict[str, Any]) -> str:
    """What values it takes."""
    values = field.get("enum") or field.get("items", {}).get("enum")
    if values:
        return ", ".join(f"`{v}`" for v in values)
    if "minimum" in field:
        return f"{'>' if field.get('exclusiveMinimum') else '≥'} {field['minimum']}, ≤ {field['maximum']}"
    return f"≤ {field['maxLength']} characters" if "maxLength" in field else ""


def text(field: dict[str, Any]) -> str:
    """Its description and the rules it keeps."""
    rules = (rule["message"] for rule in field.get("x-kubernetes-validations", ()) if "oldSelf" not in rule["rule"])
    return " ".join([field.get("description", ""), *(f"*Refused:* {rule}." for rule in rules)]).strip()


def reference() -> str:
    """The whole page."""
    spec = openapi()["properties"]["spec"]
    return HEAD + "\n".join(rows(spec, "spec")) + "\n\n" + "Rules over the whole spec: " + text({**spec, "description": ""}) + "\n"


if __name__ == "__main__":
    ROOT.joinpath("docs", "resource.md").write_text(reference())
    # Flux and other collectors of charts leave symbolic links out.
    for definition in (ROOT / "crds").glob("*.yaml"):
        shutil.copyfile(definition, ROOT / "charts" / "maft" / "files" / "crds" / definition.name)
