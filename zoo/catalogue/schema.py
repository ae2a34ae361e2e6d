"""The JSON Schema of registry files, made from the structs: editors complete, explain and check keys by it.

    python -m zoo.catalogue.schema registry.schema.json

writes it; the first line of a registry.toml beside it is then `#:schema ./registry.schema.json`. It is shipped as
`zoo/catalogue/registry.schema.json`. No command imports this module.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from zoo.catalogue import augmentation, recipe, spec, study
from zoo.catalogue.keys import lines_of, summary_of
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import NAME
from zoo.catalogue.registry_file import TABLES
from zoo.catalogue.spec import Dataset, Model, Source
from zoo.catalogue.study import Study

DIALECT = "https://json-schema.org/draft/2020-12/schema"
OPENAPI_ONLY = "discriminator"
ENTRIES: tuple[type[msgspec.Struct], ...] = (Source, Dataset, Recipe, Model, Study)
"""What an entry of each of TABLES is."""


def registry_schema() -> dict[str, Any]:
    """The schema of a registry file as a whole."""
    _, parts = msgspec.json.schema_components(ENTRIES, ref_template="#/$defs/{name}")
    structs = {
        name: kind
        for module in (augmentation, recipe, spec, study)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    }
    definitions = {name: _explained(_in_toml(part), structs[name]) for name, part in parts.items()}
    definitions |= {"Node": _node(), "Argument": _argument(), "Data": _data()}
    _add_grammar(definitions)
    tables = {table: _table(kind) for table, kind in zip(TABLES, ENTRIES, strict=True)}
    return {
        "$schema": DIALECT,
        "title": "Registry file of hybrid-zoo",
        "description": "Sources, datasets, recipes, models and studies as data.",
        "type": "object",
        "properties": {"catalogue": _catalogue(), **tables},
        "additionalProperties": False,
        "$defs": definitions,
    }


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(registry_schema(), indent=1, ensure_ascii=False) + "\n"


def _in_toml(schema: Any) -> Any:
    """A part without what TOML cannot say (null), and without keywords that Taplo misreads."""
    if not isinstance(schema, dict):
        return [_in_toml(item) for item in schema] if isinstance(schema, list | tuple) else schema
    plain = {
        key: {name: _in_toml(part) for name, part in value.items()} if key == "properties" else _in_toml(value)
        for key, value in schema.items()
        if key != OPENAPI_ONLY and (key, value) not in (("default", None), ("required", []))
    }
    if "prefixItems" in plain:  # newer than Taplo's validator; members of our lists of fixed length are alike
        plain["items"], *_ = plain.pop("prefixItems")
    choices = [choice for choice in plain.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        return choices[0] | {key: value for key, value in plain.items() if key != "anyOf"}
    return plain | ({"anyOf": choices} if choices else {})


def _explained(part: dict[str, Any], struct: type[msgspec.Struct]) -> dict[str, Any]:
    """A part whose keys have the lines of the struct's docstring."""
    lines = lines_of(struct)
    keys = {name: _described(key, lines.get(name, "")) for name, key in part["properties"].items()}
    return {**part, "description": summary_of(struct), "properties": keys}


def _described(key: dict[str, Any], line: str) -> dict[str, Any]:
    """A key with its line; a list's members have it as well, for Taplo shows theirs where the pointer rests."""
    if not line:
        return key
    members = {"items": {"description": line, **key["items"]}} if "items" in key else {}
    return {"description": line, **key, **members}


def _add_grammar(definitions: dict[str, Any]) -> None:
    """What the structs leave open, and reading the file checks: `extends`, and keys that name fields of a recipe."""
    fields = definitions["Recipe"]["properties"]
    definitions["Dataset"]["properties"]["adapt"] |= {
        "properties": {name: {"$ref": f"#/$defs/Recipe/properties/{name}"} for name in fields},
        "additionalProperties": False,
    }
    fields = {"extends": {"type": "string", "description": "Recipe whose fields this one begins with."}} | fields
    definitions["Recipe"]["properties"] = fields
    varied = "|".join(name for name in Recipe.__struct_fields__ if name not in ("summary", "source"))
    changes = {"propertyNames": {"pattern": rf"^(model|dataset|recipe|build\..+|(recipe\.)?({varied}))$"}}
    places = (("Study", "grid"), ("Study", "each"), ("StudyResult", "at"), ("Published", "changes"))
    for struct, key in places:
        definitions[struct]["properties"][key] |= changes


def _node() -> dict[str, Any]:
    """The grammar of a model's tree, as `zoo.catalogue.spec.node_from_table` reads it."""
    lines = lines_of(spec.Node)
    return {
        "title": "Node",
        "description": summary_of(spec.Node),
        "type": "object",
        "properties": {
            "use": {"description": lines["use"], "type": "string", "pattern": r"\."},
            "of": {"description": lines["of"], "type": "array", "items": {"$ref": "#/$defs/Node"}},
        },
        "required": ["use"],
        "additionalProperties": {"$ref": "#/$defs/Argument"},
    }


def _argument() -> dict[str, Any]:
    """An argument of a component: whatever has `use` is a node again."""
    return {
        "description": "Argument of the component: a value, a node with `use`, or a list of either.",
        "anyOf": [
            {"$ref": "#/$defs/Node"},
            {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/Node"}, {"$ref": "#/$defs/Data"}]}},
            {"$ref": "#/$defs/Data"},
        ],
    }


def _data() -> dict[str, Any]:
    """What has no node in it: so are the lists in a list."""
    return {
        "description": "Value of an argument without a node in it.",
        "anyOf": [
            {"type": "object", "not": {"required": ["use"]}},
            {"type": "array", "items": {"$ref": "#/$defs/Data"}},
            {"type": ["string", "number", "boolean"]},
        ],
    }


def _table(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """A top-level table: names to entries."""
    return {
        "description": summary_of(kind),
        "type": "object",
        "propertyNames": {"pattern": f"^{NAME.pattern}$"},
        "additionalProperties": {"$ref": f"#/$defs/{kind.__name__}"},
    }


def _catalogue() -> dict[str, Any]:
    """The table that names a whole catalogue; ours has one, and a file of yours needs none."""
    return {
        "description": "Name and version of a catalogue.",
        "type": "object",
        "properties": {"name": {"type": "string"}, "version": {"type": "integer"}},
    }


def main(paths: Sequence[str]) -> None:
    """Write the schema to each of the files; print it where none is named."""
    for path in paths:
        Path(path).write_text(schema_text(), "utf-8", newline="\n")
    if not paths:
        sys.stdout.write(schema_text())


if __name__ == "__main__":
    main(sys.argv[1:])
