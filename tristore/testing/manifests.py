"""Whether Kubernetes' manifests fit together: what no validator of single documents sees. A Service whose selector
matches no pod is as valid as any."""

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from tristore.testing.kustomize import Manifest, containers

QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kMGTPE]|[KMGTPE]i)?")
FACTORS = {"m": 1e-3, "": 1.0, "k": 1e3, **{f"{unit}i": 1024.0**n for n, unit in enumerate("KMGTPE", 1)}}
FACTORS |= {unit: 1000.0**n for n, unit in enumerate("MGTPE", 2)}
PROBES = {"startupProbe": "startup", "readinessProbe": "ready", "livenessProbe": "live"}
WORKLOADS = ("Deployment", "Job")


@dataclass(frozen=True)
class Facts:
    """What the manifests must fit to."""

    settings: Set[str]
    """The names of all settings, in upper case."""
    paths: Set[str]
    """Of the service's routes."""
    secrets_folder: str
    """Where a file is a setting."""
    closing_seconds: float
    """So long a process may take from the end of DRAIN_SECONDS until it is gone."""


def misfits(manifests: Sequence[Manifest], facts: Facts) -> list[str]:
    """A line for each thing that does not fit. None where all is well."""
    return list(_Check(manifests, facts).all())


class _Check:
    def __init__(self, manifests: Sequence[Manifest], facts: Facts) -> None:
        self._manifests = manifests
        self._facts = facts

    def all(self) -> Iterator[str]:
        names = [(one["kind"], one["metadata"]["name"]) for one in self._manifests]
        yield from (
            f"{kind} {name} is there twice" for kind, name in sorted(set(names)) if names.count((kind, name)) > 1
        )
        for check, kinds in (
            (self._workload, WORKLOADS),
            (self._deployment, ("Deployment",)),
            (self._service, ("Service",)),
            (self._scaler, ("HorizontalPodAutoscaler",)),
            (self._budget, ("PodDisruptionBudget",)),
            (self._policy, ("NetworkPolicy",)),
            (self._monitor, ("ServiceMonitor",)),
            (self._values, ("ConfigMap", "Secret")),
        ):
            for manifest in self._manifests:
                if manifest["kind"] in kinds:
                    who = f"{manifest['kind']} {manifest['metadata']['name']}"
                    yield from (f"{who}: {misfit}" for misfit in check(manifest))

    # What they are looked up in

    def _named(self, kind: str, name: str) -> Manifest | None:
        return next((one for one in self._manifests if (one["kind"], one["metadata"]["name"]) == (kind, name)), None)

    def _keys(self, kind: str, name: str) -> Set[str] | None:
        found = self._named(kind, name)
        return None if found is None else {**found.get("data", {}), **found.get("stringData", {})}.keys()

    def _selected(self, selector: dict[str, str]) -> list[Manifest]:
        """The workloads whose pods have these labels."""
        workloads = [one for one in self._manifests if one["kind"] in WORKLOADS]
        return [one for one in workloads if selector.items() <= _template(one)["metadata"]["labels"].items()]

    # The checks

    def _workload(self, workload: Manifest) -> Iterator[str]:
        pod = _template(workload)["spec"]
        if self._named("ServiceAccount", pod.get("serviceAccountName", "default")) is None:
            yield f"there is no ServiceAccount {pod.get('serviceAccountName', 'default')}"
        if not pod.get("securityContext", {}).get("runAsNonRoot"):
            yield "it may run as root"
        yield from self._volumes(pod)
        for container in containers(workload):
            yield from self._container(container)

    def _volumes(self, pod: Manifest) -> Iterator[str]:
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounted = [mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])]
        yield from (f"volume {name} is mounted and does not exist" for name in mounted if name not in volumes)
        yield from (f"volume {name} is mounted nowhere" for name in volumes if name not in mounted)
        for name, volume in volumes.items():
            for kind, field, key in (("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name")):
                if field in volume and self._named(kind, volume[field][key]) is None:
                    yield f"volume {name} is of {kind} {volume[field][key]}, which does not exist"
            if "emptyDir" in volume:
                yield from _quantity(f"volume {name}", volume["emptyDir"].get("sizeLimit", "missing"))

    def _container(self, container: Manifest) -> Iterator[str]:
        rights = container.get("securityContext", {})
        if (
            not re.fullmatch(r"[^:@]+(:[\w.-]+|@sha256:[0-9a-f]{64})", container["image"])
            or ":latest" in container["image"]
        ):
            yield f"image {container['image']} has no exact version"
        if rights.get("allowPrivilegeEscalation", True) or rights.get("capabilities", {}).get("drop") != ["ALL"]:
            yield "it may gain rights"
        if not rights.get("readOnlyRootFilesystem"):
            yield "its root can be written to"
        yield from self._environment(container)
        yield from _resources(container.get("resources", {}))
        for probe in PROBES.keys() & container.keys():
            yield from self._probe(probe, container)

    def _environment(self, container: Manifest) -> Iterator[str]:
        for source in container.get("envFrom", []):
            for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if field in source and self._named(kind, source[field]["name"]) is None:
                    yield f"its environment is of {kind} {source[field]['name']}, which does not exist"
        for variable in container.get("env", []):
            if variable["name"] not in self._facts.settings:
                yield f"{variable['name']} is no setting"
            for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                reference = variable.get("valueFrom", {}).get(field)
                if reference and reference["key"] not in (self._keys(kind, reference["name"]) or ()):
                    yield f"{variable['name']} is of {kind} {reference['name']}, which has no {reference['key']}"

    def _probe(self, name: str, container: Manifest) -> Iterator[str]:
        asked = container[name]["httpGet"]
        if asked["port"] not in _ports(container):
            yield f"{name} asks port {asked['port']}, which the container does not have"
        if asked["path"] not in self._facts.paths:
            yield f"{name} asks for {asked['path']}, which the service does not have"
        elif not asked["path"].endswith(f"/{PROBES[name]}"):
            yield f"{name} asks for {asked['path']}, which is for another one"

    def _deployment(self, deployment: Manifest) -> Iterator[str]:
        selector = deployment["spec"]["selector"]["matchLabels"]
        if self._selected(selector) != [deployment]:
            yield f"its selector {selector} does not match its own pods alone"
        pod = _template(deployment)["spec"]
        for spread in pod.get("topologySpreadConstraints", []):
            if self._selected(spread["labelSelector"]["matchLabels"]) != [deployment]:
                yield f"pods are spread over {spread['topologyKey']} by other labels than theirs"
        for container in pod["containers"]:
            yield from (f"container {container['name']} has no {probe}" for probe in PROBES.keys() - container.keys())
            needed = self._drain_seconds(container) + self._facts.closing_seconds
            if (grace := pod.get("terminationGracePeriodSeconds", 30)) <= needed:
                yield f"it is killed after {grace} s, and may take {needed:g} s to end"

    def _drain_seconds(self, container: Manifest) -> float:
        sources = [
            source["configMapRef"]["name"] for source in container.get("envFrom", []) if "configMapRef" in source
        ]
        maps = filter(None, (self._named("ConfigMap", name) for name in sources))
        return max((float(one["data"].get("DRAIN_SECONDS", 0)) for one in maps), default=0)

    def _service(self, service: Manifest) -> Iterator[str]:
        selector = service["spec"]["selector"]
        selected = self._selected(selector)
        if [one["kind"] for one in selected] != ["Deployment"]:
            yield f"its selector {selector} matches not the pods of one Deployment, but of {len(selected)} workloads"
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if not any(target in _ports(container) for one in selected for container in containers(one)):
                yield f"it leads to port {target}, which its pods do not have"

    def _scaler(self, scaler: Manifest) -> Iterator[str]:
        target = scaler["spec"]["scaleTargetRef"]
        found = self._named(target["kind"], target["name"])
        if found is None or found["apiVersion"] != target["apiVersion"]:
            yield f"it scales {target['apiVersion']} {target['kind']} {target['name']}, which does not exist"
        elif "replicas" in found["spec"]:
            yield f"{target['kind']} {target['name']} sets a number of replicas of its own each time it is applied"
        if scaler["spec"]["minReplicas"] > scaler["spec"]["maxReplicas"]:
            yield "its least is more than its most"

    def _budget(self, budget: Manifest) -> Iterator[str]:
        selector = budget["spec"]["selector"]["matchLabels"]
        if [one["kind"] for one in self._selected(selector)] != ["Deployment"]:
            yield f"its selector {selector} does not match the pods of one Deployment"

    def _policy(self, policy: Manifest) -> Iterator[str]:
        selector = policy["spec"]["podSelector"].get("matchLabels", {})
        selected = self._selected(selector)
        if not selected:
            yield f"its selector {selector} matches no pods"
        for way in policy["spec"].get("ingress", []):
            for port in way.get("ports", []):
                if not any(port["port"] in _ports(container) for one in selected for container in containers(one)):
                    yield f"it lets in to port {port['port']}, which its pods do not have"

    def _monitor(self, monitor: Manifest) -> Iterator[str]:
        selector = monitor["spec"]["selector"]["matchLabels"]
        services = [
            one
            for one in self._manifests
            if one["kind"] == "Service" and selector.items() <= one["metadata"].get("labels", {}).items()
        ]
        if len(services) != 1:
            yield f"its selector {selector} matches {len(services)} Services"
        for endpoint in monitor["spec"]["endpoints"]:
            if not any(endpoint["port"] == port.get("name") for one in services for port in one["spec"]["ports"]):
                yield f"it reads port {endpoint['port']}, which its Service does not name"
            if endpoint["path"] not in self._facts.paths:
                yield f"it reads {endpoint['path']}, which the service does not have"
            credentials = endpoint.get("authorization", {}).get("credentials")
            if credentials and credentials["key"] not in (self._keys("Secret", credentials["name"]) or ()):
                yield f"Secret {credentials['name']} has no {credentials['key']}"

    def _values(self, values: Manifest) -> Iterator[str]:
        given = {**values.get("data", {}), **values.get("stringData", {})}
        for name, value in given.items():
            if name not in self._facts.settings:
                yield f"{name} is no setting"
            if not isinstance(value, str):
                yield f"{name} must be text: write it in quotes"
        mounts = {
            mount["mountPath"]
            for workload in self._manifests
            if workload["kind"] in WORKLOADS
            for volume in _template(workload)["spec"].get("volumes", [])
            for container in containers(workload)
            for mount in container.get("volumeMounts", [])
            if mount["name"] == volume["name"]
            and values["metadata"]["name"] == volume.get("secret", {}).get("secretName")
        }
        if mounts - {self._facts.secrets_folder}:
            yield f"it is mounted elsewhere than in {self._facts.secrets_folder}, where settings are read"


def _template(workload: Manifest) -> Any:
    return workload["spec"]["template"]


def _ports(container: Manifest) -> set[str | int]:
    ports = container.get("ports", [])
    return {port["containerPort"] for port in ports} | {port["name"] for port in ports if "name" in port}


def _resources(resources: Manifest) -> Iterator[str]:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    yield from (f"it requests no {what}" for what in sorted({"cpu", "memory"} - requests.keys()))
    if "memory" not in limits:
        yield "its memory has no limit"
    for given in (requests, limits):
        for what, amount in given.items():
            yield from _quantity(what, amount)
    for what in requests.keys() & limits.keys():
        if (_amount(requests[what]) or 0) > (_amount(limits[what]) or 0):
            yield f"it requests more {what} than its limit"


def _quantity(what: str, amount: object) -> Iterator[str]:
    if (number := _amount(amount)) is None:
        yield f"{what} is {amount!r}, which is no quantity"
    elif what != "cpu" and number < 2**20:
        yield f"{what} is {amount!r}: less than a megabyte"


def _amount(amount: object) -> float | None:
    match = QUANTITY.fullmatch(str(amount))
    return float(match[1]) * FACTORS[match[2] or ""] if match else None
