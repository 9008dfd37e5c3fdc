"""Spans: what they tell, what they never tell, and how a delivery hours later finds its request."""

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from types import SimpleNamespace

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from tristore import spans
from tristore.errors import StoreUnavailable
from tristore.models import new_id
from tristore.ops import tracing
from tristore.ops.open_telemetry import AsTheRequest, Discreet, exporter_named
from tristore.outbox.effects import Effect, NotYet
from tristore.outbox.unit_of_work import PostgresUnitOfWork
from tristore.saga.engine import PostgresStep, RemoteStep, Sagas
from tristore.saga.repository import SagaRepository
from tristore.saga.tables import Progress
from tristore.stores.stores import Stores
from tristore.stores.watched import named
from tristore.testing.outbox import (
    Journal,
    Noted,
    forget_effects,
    make_outbox,
    outbox_repository,
    pass_leases,
    query,
    stores_apart,
    until_empty,
    write,
)
from tristore.testing.stores import Servers
from tristore.testing.traces import Kept, context_of, linked, request, traced

SECRET = "hunter2-should-never-come-back"


@pytest.fixture(scope="module")
async def own(servers: Servers) -> AsyncIterator[Stores]:
    with traced():
        async with stores_apart(servers) as stores:
            yield stores


@pytest.fixture
def kept() -> Iterator[Kept]:
    with traced() as kept:
        yield kept


async def relay(stores: Stores, targets: object) -> None:
    """What another process does later."""
    await pass_leases(stores)
    outbox = make_outbox(stores, targets)
    outbox.start()
    await until_empty(stores)
    await outbox.close()


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": " console , otlp "}, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "True"}, False),
    ],
)
def test_traces_are_wanted_by_an_exporter_or_an_endpoint(environment: dict[str, str], wanted: bool) -> None:
    assert tracing.are_wanted(environment) is wanted


def test_without_a_wish_fastapi_looks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tracing.of_requests()["tracing"]
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    wanted = tracing.of_requests()
    assert wanted["tracing"]
    assert not any(wanted[name] for name in ("metrics", "logs", "operation_spans", "auto_configure"))


def test_an_exporter_is_found_by_its_name_or_its_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(exporter_named("console")).__name__ == "ConsoleSpanExporter"
    assert type(exporter_named("otlp")).__module__.startswith("opentelemetry.exporter.otlp.proto.http.")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(LookupError, match="no exporter otlp_proto_grpc is installed"):
        exporter_named("otlp")


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT users.id FROM users WHERE users.id = $1", ("SELECT", "users")),
        ('insert into "orders" (id) values ($1) ON CONFLICT DO UPDATE SET id = 1', ("INSERT", "orders")),
        ("SELECT 1 FROM outbox_streams WHERE aggregate = $1 FOR UPDATE SKIP LOCKED", ("SELECT", "outbox_streams")),
        ("SELECT id FROM users FOR NO KEY UPDATE NOWAIT", ("SELECT", "users")),
        ("WITH a AS (SELECT * FROM unnest($1)) INSERT INTO outbox SELECT * FROM a", ("INSERT", "outbox")),
        ("SELECT extract(epoch FROM clock_timestamp()) FROM sagas", ("SELECT", "sagas")),
        ("\nWITH due AS (SELECT 1 FROM sagas) SELECT * FROM due", ("SELECT", "sagas")),
        ("UPDATE sagas SET step = $1", ("UPDATE", "sagas")),
        ("DELETE FROM sessions", ("DELETE", "sessions")),
        ("SELECT set_config($1, $2, true)", ("SELECT", "")),
    ],
)
def test_a_statement_is_named_by_what_it_does_and_to_which_table(sql: str, name: tuple[str, str]) -> None:
    assert named(sql) == name


def test_nothing_leaves_the_process_but_names_and_numbers() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Discreet(exporter)))
    asked = {"url.path": SECRET, "url.query": SECRET, "db.query.text": SECRET, "http.route": "/a"}
    attributes: dict[str, str | int] = {**asked, "app.size": 3}
    link = Link(SpanContext(1, 2, is_remote=True), {"db.query.text": SECRET})
    with pytest.raises(ValueError, match=SECRET):
        with provider.get_tracer("a library").start_as_current_span("GET /a", attributes=attributes, links=[link]):
            raise ValueError(SECRET)  # which OpenTelemetry notes as an event, and as the status' description
    [span] = exporter.get_finished_spans()
    assert SECRET not in span.to_json()
    assert span.attributes == {"http.route": "/a", "app.size": 3}
    assert span.status.status_code is StatusCode.ERROR
    assert [link.context.span_id for link in span.links] == [2]
    assert span.end_time


def decided(sampler: Sampler, *, of_request: SpanContext | None, within: SpanContext | None = None) -> bool:
    links = [Link(of_request)] if of_request else []
    inside = trace.set_span_in_context(NonRecordingSpan(within)) if within else context.Context()
    result = AsTheRequest(sampler).should_sample(inside, 2**64 - 1, "apply", links=links)
    return result.decision is Decision.RECORD_AND_SAMPLE


def at(trace_id: int, *, sampled: bool) -> SpanContext:
    return SpanContext(trace_id, 1, is_remote=True, trace_flags=TraceFlags(int(sampled)))


def test_a_delivery_is_sampled_as_its_request_was() -> None:
    rarely = ParentBased(TraceIdRatioBased(0.5))  # takes small ids
    assert decided(rarely, of_request=at(2**64 - 1, sampled=True))
    assert not decided(rarely, of_request=at(1, sampled=False))
    assert not decided(rarely, of_request=None)
    assert decided(TraceIdRatioBased(0.5), of_request=at(1, sampled=False))  # one that asks for the id alone
    assert not decided(ALWAYS_OFF, of_request=at(1, sampled=True))
    assert not decided(ParentBased(ALWAYS_ON), of_request=at(1, sampled=True), within=at(2, sampled=False))


async def test_the_relays_delivery_is_a_trace_of_its_own_that_names_the_request(
    kept: Kept, fresh: Stores, journal: Journal
) -> None:
    async def ask_all(stream: str, number: int) -> None:
        async with fresh.mongodb.operation() as database:
            await database.notes.insert_one({"_id": SECRET + stream})
        await fresh.redis.client.set(SECRET, SECRET)
        await query(fresh, "SELECT 1 FROM outbox_streams WHERE aggregate = :secret", secret=SECRET)

    journal.before = ask_all
    with request() as asked:
        await write(make_outbox(fresh, journal), fresh, [Noted(on="a", number=1)], deliver=False)
    await relay(fresh, journal)
    [delivery] = kept.because_of(asked)
    assert delivery.name == "apply Noted"
    assert delivery.kind is SpanKind.CONSUMER
    assert delivery.attributes
    assert delivery.attributes["messaging.destination.name"] == "mongodb"
    assert {"SELECT outbox_streams", "SET", "insert notes"} <= {span.name for span in kept.within(delivery)}
    assert {span.kind for span in kept.within(delivery)} == {SpanKind.CLIENT}
    assert SECRET not in kept.text()


async def test_what_is_delivered_at_once_is_a_part_of_its_request(kept: Kept, fresh: Stores, journal: Journal) -> None:
    outbox = make_outbox(fresh, journal)
    with request():
        await write(outbox, fresh, [Noted(on="a", number=1)])
    served = kept.one("POST /things")
    assert {span.name for span in kept.within(served)} == {"INSERT outbox_streams", "COMMIT", "apply Noted"}
    assert linked(kept.one("apply Noted")) == []


async def test_a_payload_has_nothing_of_the_trace(kept: Kept, fresh: Stores, journal: Journal) -> None:
    """An earlier release beside this one reads it."""
    effect = Noted(on="a", number=1)
    with request() as asked:
        await write(make_outbox(fresh, journal), fresh, [effect], deliver=False)
    [(payload, traceparent)] = await query(fresh, "SELECT payload, traceparent FROM outbox")
    assert payload == effect.model_dump()
    assert traceparent == f"00-{asked.trace_id:032x}-{asked.span_id:016x}-{asked.trace_flags:02x}"


async def test_what_an_earlier_release_has_recorded_is_delivered(kept: Kept, fresh: Stores, journal: Journal) -> None:
    streams = "INSERT INTO outbox_streams (aggregate, store, pending, due_at) VALUES ('noted:a', 'mongodb', 1, now())"
    effects = "INSERT INTO outbox (aggregate, store, name, payload) VALUES ('noted:a', 'mongodb', 'Noted', :payload)"
    await query(fresh, streams)
    await query(fresh, effects.replace(":payload", "CAST(:payload AS jsonb)"), payload='{"on": "a", "number": 1}')
    await relay(fresh, journal)
    assert journal.applied["a/mongodb"] == [1]
    assert linked(kept.one("apply Noted")) == []


async def test_what_is_written_while_traces_are_off_is_delivered(fresh: Stores, journal: Journal) -> None:
    assert not spans.are_on()
    await write(make_outbox(fresh, journal), fresh, [Noted(on="a", number=1)], deliver=False)
    assert await query(fresh, "SELECT traceparent FROM outbox") == [(None,)]
    await relay(fresh, journal)
    assert journal.applied["a/mongodb"] == [1]


async def test_the_delivery_of_a_request_that_is_not_sampled_is_not_either(
    kept: Kept, fresh: Stores, journal: Journal
) -> None:
    inside = trace.set_span_in_context(NonRecordingSpan(at(1, sampled=False)))
    token = context.attach(inside)
    await write(make_outbox(fresh, journal), fresh, [Noted(on="a", number=1)], deliver=False)
    context.detach(token)
    await relay(fresh, journal)
    assert journal.applied["a/mongodb"] == [1]
    assert kept.all() == ()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreUnavailable("mongodb", "timeout", SECRET), StatusCode.ERROR),
        (ValueError(SECRET), StatusCode.ERROR),
        (NotYet(), StatusCode.UNSET),
    ],
)
async def test_a_failed_attempt_tells_the_errors_class_alone(
    kept: Kept, fresh: Stores, journal: Journal, error: Exception, status: StatusCode
) -> None:
    failures = [error]

    async def fail_once(stream: str, number: int) -> None:
        if failures:
            raise failures.pop()

    journal.before = fail_once
    with request():
        await write(make_outbox(fresh, journal), fresh, [Noted(on="a", number=1)])
    attempt = kept.one("apply Noted")
    assert attempt.attributes
    assert attempt.attributes["error.type"] == type(error).__name__
    assert attempt.status.status_code is status
    assert SECRET not in kept.text()


async def test_a_statement_that_fails_ends_its_span(kept: Kept, fresh: Stores) -> None:
    with request(), pytest.raises(Exception, match="more than one row"):
        await query(fresh, "SELECT (SELECT generate_series(1, 2)) FROM outbox_streams RIGHT JOIN (SELECT 1) o ON true")
    failed = kept.one("SELECT outbox_streams")
    assert failed.attributes
    assert "Error" in str(failed.attributes["error.type"])
    assert failed.status.status_code is StatusCode.ERROR


async def test_outside_of_a_request_no_call_is_a_span(kept: Kept, fresh: Stores) -> None:
    await query(fresh, "SELECT 1 FROM outbox")
    await fresh.redis.client.get("anything")
    async with fresh.mongodb.operation() as database:
        await database.notes.find_one({})
    assert kept.all() == ()


def test_a_line_of_the_log_has_the_ids_of_its_span(kept: Kept) -> None:
    with request() as asked:
        line = tracing.add_ids(None, "info", {"event": "said"})
    ids = {"trace_id": f"{asked.trace_id:032x}", "span_id": f"{asked.span_id:016x}"}
    assert line == {"event": "said", **ids}
    assert tracing.add_ids(None, "info", {"event": "said"}) == {"event": "said"}


class Errand:
    """A saga with a step in another store and one in PostgreSQL."""

    name = "errand"
    seconds: float = 30

    def __init__(self) -> None:
        self.steps: Sequence[RemoteStep | PostgresStep] = (
            RemoteStep("fetch", do=self._go, undo=self._undo),
            PostgresStep("note", do=self._note, undo=self._note),
        )

    async def turned_round(self, uow: PostgresUnitOfWork, saga: Progress, reason: str) -> None:
        pass

    async def _go(self, saga: Progress) -> None:
        pass

    async def _undo(self, saga: Progress) -> Sequence[Effect]:
        return ()

    async def _note(self, uow: PostgresUnitOfWork, saga: Progress) -> None:
        pass


async def begun(stores: Stores, errand: Errand) -> tuple[Sagas, uuid.UUID]:
    repository = outbox_repository(stores)
    sagas = Sagas(
        unit_of_work=partial(PostgresUnitOfWork, stores.postgres, repository.record),
        repository=SagaRepository(stores.postgres),
        supersede=repository.supersede,
        kinds=[errand],
    )
    saga_id = new_id()
    async with PostgresUnitOfWork(stores.postgres, repository.record) as uow:
        await sagas.begin(uow, errand.name, saga_id)
        await uow.commit()
    return sagas, saga_id


async def test_each_step_of_a_saga_names_the_request_that_has_begun_it(kept: Kept, fresh: Stores) -> None:
    errand = Errand()
    with request() as asked:
        sagas, saga_id = await begun(fresh, errand)
    await relay(fresh, SimpleNamespace(sagas=sagas))
    assert (await sagas.unfinished(saga_id))[0].state == "done"
    step = kept.one("saga errand fetch")
    assert linked(step) == [asked]
    [delivery] = kept.because_of(asked)
    assert step in kept.within(delivery)


async def test_a_saga_that_an_operator_makes_go_on_still_names_its_request(kept: Kept, fresh: Stores) -> None:
    errand = Errand()
    with request() as asked:
        sagas, saga_id = await begun(fresh, errand)
    await forget_effects(fresh)  # what it was owed was skipped
    await sagas.owe_again(saga_id, "running")
    await relay(fresh, SimpleNamespace(sagas=sagas))
    assert linked(kept.one("saga errand fetch")) == [asked]
    assert context_of(kept.one("apply ContinueSaga")) != asked


async def test_a_saga_of_an_earlier_release_goes_on(kept: Kept, fresh: Stores) -> None:
    errand = Errand()
    sagas, saga_id = await begun(fresh, errand)
    await query(fresh, "UPDATE sagas SET traceparent = NULL")
    await relay(fresh, SimpleNamespace(sagas=sagas))
    assert (await sagas.unfinished(saga_id))[0].state == "done"
    assert linked(kept.one("saga errand fetch")) == []
