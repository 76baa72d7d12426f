"""Writes a page for each kind of resource from its file in crds/: every field with type, default, bounds and description."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maft_operator.spec.schema import openapi

ROOT = Path(__file__).parents[1]
_TABLE = """
| field | type | default | bounds | meaning |
|---|---|---|---|---|
"""
_RUN = """# The resource: MultiAgentFinetune

`apiVersion: maft.dev/v1alpha1`, `kind: MultiAgentFinetune`, short name `maft`. Made from `crds/multiagentfinetunes.yaml` by
`scripts/resource_reference.py`; defaults, bounds and rules stand there and nowhere else. `maft validate FILE` checks a resource as
the API server would, and every command reads files and `--set` as kubectl does: `1e3` and `1024.0` are whole numbers, `017` is
15, `yes` is true, `1:30` a text. It refuses a key that is there twice, and `null` in place of a value. Fields used on a cluster
only are accepted and ignored by `maft run`.
"""
_SOCIETY = """# The resource: Society

`apiVersion: maft.dev/v1alpha1`, `kind: Society`: the agents of a run behind one URL ([serving.md](serving.md)). Made from
`crds/societies.yaml` by `scripts/resource_reference.py`; defaults, bounds and rules stand there and nowhere else.
"""
_COMPARISON = """# The resource: MultiAgentComparison

`apiVersion: maft.dev/v1alpha1`, `kind: MultiAgentComparison`: methods, seeds and a grid over one template
([comparing.md](comparing.md)). Made from `crds/multiagentcomparisons.yaml` by `scripts/resource_reference.py`; that file is made by
`scripts/comparison_definition.py` from the definition of runs, whose fields ([resource.md](resource.md)) stand below
`spec.template`.
"""
_HEADS = {"MultiAgentFinetune": _RUN, "MultiAgentComparison": _COMPARISON, "Society": _SOCIETY}
PAGES = {"MultiAgentFinetune": "resource.md", "MultiAgentComparison": "comparison.md", "Society": "society.md"}


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


def reference(resource: str) -> str:
    """The whole page."""
    spec = copy.deepcopy(openapi(resource)["properties"]["spec"])
    if template := spec["properties"].get("template"):
        spec["properties"]["template"] = {"type": "object", "description": template["description"]}
    rules = text({**spec, "description": ""})
    below = f"\n\nRules over the whole spec: {rules}\n" if rules else "\n"
    return _HEADS[resource] + _TABLE + "\n".join(rows(spec, "spec")) + below


if __name__ == "__main__":
    for resource, name in PAGES.items():
        ROOT.joinpath("docs", name).write_text(reference(resource))
    # Flux and other collectors of charts leave symbolic links out.
    for definition in (ROOT / "crds").glob("*.yaml"):
        shutil.copyfile(definition, ROOT / "charts" / "maft" / "files" / "crds" / definition.name)
