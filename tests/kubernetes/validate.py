"""Validates Kubernetes objects as strictly as an API server: unknown fields are errors."""

import copy
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

# The oldest version that the README of compose/kubernetes names, and the newest whose schemas are installed.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]


def closed(schema):
    """Returns the schema of a custom resource without room for unknown fields, which a server would drop."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    open_ended = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & result.keys()
    if isinstance(result.get("properties"), dict) and not open_ended:
        result["additionalProperties"] = False
    if result.pop("x-kubernetes-int-or-string", False):
        result["type"] = ["integer", "string"]
    return result


def custom_schemas(directory):
    """Returns the schema of each custom resource by its apiVersion and kind."""
    schemas = {}
    for file in sorted(directory.glob("*.yaml")):
        definition = yaml.safe_load(file.read_text())["spec"]
        for version in definition["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            # The server itself defines what metadata contains.
            schema["properties"]["metadata"] = {"type": "object"}
            schemas[f"{definition['group']}/{version['name']}", definition["names"]["kind"]] = schema
    assert schemas
    return schemas


def errors(item, custom):
    """Returns what is wrong with an object."""
    schema = custom.get((item["apiVersion"], item["kind"]))
    if schema:
        return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(item)]
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {error.message}")
    return found


def main():
    custom = custom_schemas(pathlib.Path(sys.argv[1]))
    wrong, count = [], 0
    for file in map(pathlib.Path, sys.argv[2:]):
        seen = set()
        for item in yaml.safe_load_all(file.read_text()):
            name = f"{file.name}: {item['kind']} {item['metadata']['name']}"
            if name in seen:
                wrong.append(f"{name} exists twice")
            seen.add(name)
            wrong += [f"{name}: {error}" for error in errors(item, custom)]
            # A validator that accepts this would accept a misspelled field.
            damaged = copy.deepcopy(item)
            damaged.setdefault("spec" if "spec" in item else "metadata", {})["misspelled"] = "value"
            if not errors(damaged, custom):
                wrong.append(f"{name}: an unknown field would be accepted")
            count += 1
    print(f"{count} objects, Kubernetes {' and '.join(VERSIONS)}: {len(wrong)} errors")
    sys.exit("\n".join(wrong) if wrong else 0)


main()
