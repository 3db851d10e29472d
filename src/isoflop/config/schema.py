"""The JSON Schema of the study file, with which an editor completes and checks it."""

from __future__ import annotations

import json
from typing import Any

from isoflop.config.study import Study


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a study file, descriptions included."""
    schema = Study.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "isoflop study"
    for table in (schema, *schema["$defs"].values()):
        for field in table["properties"].values():
            field.pop("title", None)  # pydantic's, made out of the key: editors would show it twice
    for name in _tagged(schema):
        # The default of `kind` serves Python; a file has to say which choice it makes.
        definition = schema["$defs"][name]
        definition["required"] = ["kind", *definition.get("required", [])]
    return schema


def schema_text() -> str:
    """Return the schema as the text of a JSON file."""
    return json.dumps(study_schema(), indent=2, ensure_ascii=True) + "\n"


def _tagged(schema: Any) -> set[str]:
    """Return the definitions that are members of a union told apart by `kind`."""
    found: set[str] = set()
    if isinstance(schema, dict):
        for reference in schema.get("discriminator", {}).get("mapping", {}).values():
            found.add(reference.rpartition("/")[2])
        schema = list(schema.values())
    if isinstance(schema, list):
        for item in schema:
            found |= _tagged(item)
    return found
