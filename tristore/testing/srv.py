"""MongoDB as a managed service offers it: a replica set with TLS only, under names that only DNS tells."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
from anyio import to_thread
from pymongo import AsyncMongoClient

from tristore.embedded.accounts import ONESELF, CannotRun, write_private
from tristore.embedded.mongodb import KEY_FILE, REPLICA_SET, MongoDB
from tristore.embedded.passwords import APP_ROLE, passwords_of
from tristore.embedded.process import LOOPBACK, free_port, gone, spawn
from tristore.testing.lab import until
from tristore.testing.tls import Authority

NAME, MEMBER = "db.example.test", "m1.example.test"
"""Of the set, as a DSN has it, and of its one member, which the certificate must have."""
PATIENCE = 60
Records = Mapping[tuple[str, str], str]
"""Name and type -> what stands there, as in a zone's file."""


@dataclass(frozen=True)
class ReplicaSet:
    port: int
    password: str

    @property
    def dsn(self) -> str:
        return f"mongodb+srv://{APP_ROLE}:{self.password}@{NAME}/"

    @property
    def records(self) -> Records:
        return {
            (f"_mongodb._tcp.{NAME}", "SRV"): f"0 0 {self.port} {MEMBER}.",
            (NAME, "TXT"): f'"authSource=admin&replicaSet={REPLICA_SET}"',
            (MEMBER, "A"): LOOPBACK,
        }


@asynccontextmanager
async def replica_set_in(folder: Path, authority: Authority) -> AsyncIterator[ReplicaSet]:
    """All its data is in the folder. Whoever made it ends it: see guarded.py."""
    kind, data, port = MongoDB(), folder / "data", free_port(None)
    data.mkdir(parents=True)
    binary = kind.choose(kind.installed(), data)
    write_private(data / KEY_FILE, passwords_of(data).administrator)
    files = {"tlsCertificateKeyFile": authority.server, "tlsCAFile": authority.ca}
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    words += ["--tlsMode", "preferTLS", "--tlsAllowConnectionsWithoutCertificates"]
    command = [*kind.command(binary, data, port), *words]
    process = spawn(command, data, folder / "log", binary.env, ONESELF)

    async def is_ready() -> bool:
        try:
            return await to_thread.run_sync(kind.ready, port, data)
        except (OSError, CannotRun):
            return False

    async def has_ended() -> bool:
        return gone(process)

    try:
        await until(is_ready, PATIENCE)
        await _offer(kind.administrator_dsn(port, passwords_of(data)), port)
        yield ReplicaSet(port, passwords_of(data).app)
    finally:
        process.kill()
        await until(has_ended, PATIENCE)


async def _offer(administrator_dsn: str, port: int) -> None:
    """Who asks for the member by its public name is told of it by that name. Nobody gets in without TLS from now on."""
    async with AsyncMongoClient[dict[str, Any]](administrator_dsn) as client:
        config = (await client.admin.command("replSetGetConfig"))["config"]
        config["members"][0]["horizons"] = {"public": f"{MEMBER}:{port}"}
        config["version"] += 1
        await client.admin.command("replSetReconfig", config)
        await client.admin.command("setParameter", 1, tlsMode="requireTLS")


class _Names(asyncio.DatagramProtocol):
    def __init__(self, records: Records) -> None:
        self._records = records
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str | Any, int]) -> None:
        query = dns.message.from_wire(data)
        [question] = query.question
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        answer = dns.message.make_response(query)
        if found := self._records.get((name, kind)):
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, found))
        elif name not in {known for known, _ in self._records}:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), address)


@asynccontextmanager
async def names_of(records: Records) -> AsyncIterator[None]:
    """This process knows no other names meanwhile. They are told by the event loop: a driver that asks for one while it
    holds the loop up gets no answer."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Names(records), (LOOPBACK, 0))
    try:
        with _asking(transport.get_extra_info("sockname")[1]):
            yield
    finally:
        transport.close()


@contextmanager
def _asking(port: int) -> Iterator[None]:
    modules: tuple[Any, Any] = dns.resolver, dns.asyncresolver  # one for each driver
    before = [module.default_resolver for module in modules]
    for module in modules:
        module.default_resolver = module.Resolver(configure=False)
        module.default_resolver.nameservers, module.default_resolver.port = [LOOPBACK], port
    dns.resolver.override_system_resolver()  # for the addresses, which the drivers ask the system for
    try:
        yield
    finally:
        dns.resolver.restore_system_resolver()
        for module, resolver in zip(modules, before, strict=True):
            module.default_resolver = resolver
