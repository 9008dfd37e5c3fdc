"""The manifests in deploy/kubernetes: valid, and fitting together. They are rendered by `tristore.testing.kustomize`,
which is held against kustomize itself where kubectl is installed."""

import shutil
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from fastapi.routing import APIRoute

from config import Settings
from tristore.http import metrics, probes
from tristore.ops.run import CLOSING_SECONDS
from tristore.ops.serve import GRACE_SECONDS
from tristore.testing.kustomize import Manifest, rendered
from tristore.testing.manifests import Facts, misfits

OVERLAYS = Path(__file__).parents[3] / "deploy" / "kubernetes" / "overlays"
NAMES = ["local", "production"]
VERSION = "1.37"
OTHERS = {"monitoring.coreos.com/v1"}
"""Of the Prometheus operator. No validator at hand knows it."""


@pytest.fixture(scope="module")
def facts() -> Facts:
    return Facts(
        settings={name.upper() for name in Settings.model_fields},
        paths={
            route.path
            for router in (probes.router, metrics.router)
            for route in router.routes
            if isinstance(route, APIRoute)
        },
        secrets_folder="/run/secrets",
        closing_seconds=GRACE_SECONDS + CLOSING_SECONDS,
    )


@pytest.mark.parametrize("overlay", NAMES)
def test_manifests_fit_together(overlay: str, facts: Facts) -> None:
    assert misfits(rendered(OVERLAYS / overlay), facts) == []


@pytest.mark.parametrize("overlay", NAMES)
def test_manifests_are_valid(overlay: str) -> None:
    for manifest in rendered(OVERLAYS / overlay):
        if manifest["apiVersion"] not in OTHERS:
            kubernetes_validate.validate(manifest, VERSION, strict=True)  # a kind that it does not know is an error


@pytest.mark.parametrize("overlay", NAMES)
def test_kustomize_renders_the_same(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("NOT RUN for want of kubectl")
    command = ["kubectl", "kustomize", str(OVERLAYS / overlay)]
    printed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    theirs, ours = list(yaml.safe_load_all(printed)), rendered(OVERLAYS / overlay)
    assert sorted(theirs, key=_identity) == sorted(ours, key=_identity)


@pytest.mark.parametrize("overlay", NAMES)
def test_the_settings_are_taken_once_the_passwords_are_real(overlay: str) -> None:
    values: dict[str, str] = {}
    for manifest in rendered(OVERLAYS / overlay):
        if manifest["kind"] in {"ConfigMap", "Secret"}:
            values |= {
                name.lower(): value
                for name, value in {**manifest.get("data", {}), **manifest.get("stringData", {})}.items()
            }
    given: dict[str, Any] = {name: value.replace("changeme", "of-nobody-else-here") for name, value in values.items()}
    assert Settings(_env_file=None, **given).environment == overlay
    if overlay == "production":
        with pytest.raises(ValueError, match="well-known password"):
            Settings(_env_file=None, **given | {"postgres_dsn": values["postgres_dsn"]})


def test_no_more_pods_than_connections() -> None:
    text = (OVERLAYS / "production" / "autoscaling.yaml").read_text()
    [scaler] = [one for one in rendered(OVERLAYS / "production") if one["kind"] == "HorizontalPodAutoscaler"]
    pods = scaler["spec"]["maxReplicas"] + 1
    assert (
        f"{pods} x (POSTGRES_POOL_SIZE + 4) = {pods * (Settings.model_fields['postgres_pool_size'].default + 4)}"
        in text
    )


def _identity(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


Change = Callable[[Any], None]


def _set(*path: str | int, to: Any) -> Change:
    def change(manifest: Any) -> None:
        for step in path[:-1]:
            manifest = manifest[step]
        manifest[path[-1]] = to

    return change


POD = ("spec", "template", "spec")
API = (*POD, "containers", 0)
LABELS = {"app.kubernetes.io/name": "chatlingo", "app.kubernetes.io/component": "web"}
# Each is valid to every validator of single documents.
MISFITS: dict[str, tuple[str, Change, str]] = {
    "a Service's selector": ("Service", _set("spec", "selector", to=LABELS), "matches not the pods"),
    "a Service's selector that matches the Job too": (
        "Service",
        _set("spec", "selector", to={"app.kubernetes.io/name": "chatlingo"}),
        "of 2 workloads",
    ),
    "a Service's port": ("Service", _set("spec", "ports", 0, "targetPort", to="web"), "port web"),
    "a probe's port": ("Deployment", _set(*API, "livenessProbe", "httpGet", "port", to="web"), "asks port web"),
    "a probe's path": ("Deployment", _set(*API, "livenessProbe", "httpGet", "path", to="/healthz"), "/healthz"),
    "a probe of another kind": (
        "Deployment",
        _set(*API, "livenessProbe", "httpGet", "path", to="/health/ready"),
        "for another one",
    ),
    "a volume that does not exist": ("Deployment", _set(*API, "volumeMounts", 0, "name", to="temp"), "does not exist"),
    "a volume's Secret": (
        "Deployment",
        _set(*POD, "volumes", 1, "secret", "secretName", to="secrets"),
        "Secret secrets, which does not exist",
    ),
    "a quantity": ("Deployment", _set(*API, "resources", "limits", "memory", to="512 MB"), "no quantity"),
    "a quantity in thousandths": ("Deployment", _set(*API, "resources", "limits", "memory", to="512m"), "less than"),
    "a request above the limit": ("Job", _set(*API, "resources", "requests", "memory", to="1Gi"), "than its limit"),
    "the scaler's target": (
        "HorizontalPodAutoscaler",
        _set("spec", "scaleTargetRef", "name", to="chatlingo-api"),
        "does not exist",
    ),
    "a budget's selector": ("PodDisruptionBudget", _set("spec", "selector", "matchLabels", to=LABELS), "its selector"),
    "a policy's selector": ("NetworkPolicy", _set("spec", "podSelector", "matchLabels", to=LABELS), "matches no pods"),
    "a policy's port": ("NetworkPolicy", _set("spec", "ingress", 0, "ports", 0, "port", to="web"), "lets in to port"),
    "a monitor's selector": ("ServiceMonitor", _set("spec", "selector", "matchLabels", to=LABELS), "0 Services"),
    "a monitor's port": ("ServiceMonitor", _set("spec", "endpoints", 0, "port", to="metrics"), "reads port metrics"),
    "a monitor's token": (
        "ServiceMonitor",
        _set("spec", "endpoints", 0, "authorization", "credentials", "key", to="TOKEN"),
        "has no TOKEN",
    ),
    "a setting that is none": ("ConfigMap", _set("data", "POSTGRES_POOLSIZE", to="5"), "is no setting"),
    "a secret that is no setting": ("Secret", _set("stringData", "POSTGRESQL_DSN", to="x"), "is no setting"),
    "settings of another map": (
        "Deployment",
        _set(*API, "envFrom", 0, "configMapRef", "name", to="settings"),
        "ConfigMap settings, which does not exist",
    ),
    "an account": ("Job", _set(*POD, "serviceAccountName", to="migrator"), "no ServiceAccount"),
    "a grace period": ("Deployment", _set(*POD, "terminationGracePeriodSeconds", to=15), "killed after 15 s"),
    "replicas beside a scaler": ("Deployment", _set("spec", "replicas", to=3), "replicas of its own"),
    "a floating image": ("Deployment", _set(*API, "image", to="tristore:latest"), "no exact version"),
    "a folder where no settings are read": (
        "Deployment",
        _set(*API, "volumeMounts", 1, "mountPath", to="/secrets"),
        "mounted elsewhere",
    ),
    "spreading by other labels": (
        "Deployment",
        _set(*POD, "topologySpreadConstraints", 0, "labelSelector", "matchLabels", to=LABELS),
        "other labels",
    ),
}


@pytest.mark.parametrize("fault", MISFITS)
def test_what_validators_miss_is_refused(fault: str, facts: Facts) -> None:
    kind, change, told = MISFITS[fault]
    manifests = deepcopy(rendered(OVERLAYS / "production"))
    changed = next(one for one in manifests if one["kind"] == kind)
    change(changed)
    if kind != "ServiceMonitor":
        kubernetes_validate.validate(changed, VERSION, strict=True)
    found = misfits(manifests, facts)
    assert any(told in line for line in found), found


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Deployment", _set(*API, "readynessProbe", to={})),
        ("Deployment", _set("spec", "replicas", to="three")),
        ("PodDisruptionBudget", _set("apiVersion", to="policy/v1beta1")),
        ("HorizontalPodAutoscaler", _set("kind", to="PodAutoscaler")),
    ],
)
def test_what_a_validator_sees_is_refused_by_it(kind: str, change: Change) -> None:
    manifest = deepcopy(next(one for one in rendered(OVERLAYS / "production") if one["kind"] == kind))
    change(manifest)
    with pytest.raises((kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError)):
        kubernetes_validate.validate(manifest, VERSION, strict=True)
