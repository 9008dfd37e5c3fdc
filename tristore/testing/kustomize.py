"""Renders what kustomize renders, as far as `deploy/kubernetes` uses it: `resources`, `namespace`, `images`, and
`patches` that are files of strategic merges. Anything else is refused."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
KNOWN = {"apiVersion", "kind", "resources", "namespace", "images", "patches"}
CLUSTER_WIDE = {"Namespace"}


def rendered(folder: Path) -> list[Manifest]:
    """All manifests of an overlay or a base. Raises ValueError for what this does not know."""
    layer = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := layer.keys() - KNOWN:
        raise ValueError(f"{folder}: this renderer knows no {', '.join(sorted(unknown))}")
    manifests = [manifest for name in layer["resources"] for manifest in _read(folder / name)]
    for patch in layer.get("patches", []):
        if patch.keys() != {"path"}:
            raise ValueError(f"{folder}: this renderer knows only patches that are a file")
        for change in _read(folder / patch["path"]):
            _patch(manifests, change)
    for manifest in manifests:
        if (namespace := layer.get("namespace")) and manifest["kind"] not in CLUSTER_WIDE:
            manifest["metadata"]["namespace"] = namespace
        for container in containers(manifest):
            container["image"] = _image(container["image"], layer.get("images", []))
    return manifests


def containers(manifest: Manifest) -> list[Manifest]:
    template = manifest.get("spec", {}).get("template")
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]] if template else []


def _read(path: Path) -> Iterator[Manifest]:
    if path.is_dir():
        yield from rendered(path)
    else:
        yield from filter(None, yaml.safe_load_all(path.read_text()))


def _patch(manifests: list[Manifest], change: Manifest) -> None:
    [target] = [one for one in manifests if _identity(one) == _identity(change)]
    _merge(target, change)


def _identity(manifest: Manifest) -> tuple[str, str, str]:
    return manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]


def _merge(target: Manifest, change: Manifest) -> None:
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        elif isinstance(value, list) and key in target:
            raise ValueError(f"this renderer merges no lists: {key}")
        else:
            target[key] = deepcopy(value)


def _image(image: str, changes: list[dict[str, str]]) -> str:
    name, _, tag = image.partition(":")
    for change in changes:
        if change["name"] == name:
            name, tag = change.get("newName", name), change.get("newTag", tag)
            return f"{name}@{change['digest']}" if "digest" in change else f"{name}:{tag}"
    return image
