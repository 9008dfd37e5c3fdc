"""Reads the metrics as Prometheus does."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

TOKEN = "a-token-for-the-metrics"
SCRAPER = {"Authorization": f"Bearer {TOKEN}"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(client: httpx.AsyncClient, headers: dict[str, str] | None = None) -> Samples:
    answer = await client.get("/metrics", headers=headers)
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    return sum(number for (n, ls), number in samples.items() if n == name and labels.items() <= dict(ls).items())
