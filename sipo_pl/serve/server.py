"""The socket and the loop of a server."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress

import uvicorn
from h11 import LocalProtocolError

from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.serve.answering import Defaults, Service
from sipo_pl.serve.app import make_app
from sipo_pl.serve.catalogue import make_catalogue
from sipo_pl.serve.connections import BEYOND, connections
from sipo_pl.serve.engine import Engine
from sipo_pl.serve.guard import is_local
from sipo_pl.serve.limits import Limits
from sipo_pl.serve.metrics import Metrics
from sipo_pl.serve.prompts import Prompts
from sipo_pl.storage.stopping import arrived
from sipo_pl.use.api import Policies

log = logging.getLogger("sipo_pl")
HURRY = 5  # seconds in which answers that were ended are sent
SENDING = 0.1  # seconds in which, after a second signal, they are sent
FILES = 256  # that are open beside the connections


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens; whoever connects waits for the server to begin.

    Raises:
        UsageError: no address of this machine, or a port that is taken or not allowed.
    """
    host = host.removeprefix("[").removesuffix("]")  # as an address has them in a URL
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # with the protocol by name: only then asyncio sends small pieces at once
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(1024)  # at once: two that are only bound could share a port
    except (OSError, OverflowError) as error:
        bound.close()
        raise UsageError(f"{host}:{port}: cannot listen there: {error}; --host and --port name another place") from None
    return bound


def address(bound: socket.socket) -> str:
    """Return the address of a socket as it is put into a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """A server that, once it is asked to stop, gives running answers a few seconds to end.

    Args:
        config: of uvicorn.
        engine: decodes.
    """

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self.engine = engine

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the connections, and answers that take too long with an error."""
        asyncio.get_running_loop().call_later(self.engine.limits.grace, self.engine.end_answers)
        await super().shutdown(sockets)
        if self.force_exit:  # by a second signal; uvicorn then leaves out what follows
            self.engine.end_answers()
            await asyncio.sleep(SENDING)
            await self.lifespan.shutdown()


def make_server(
    policies: Policies,
    bound: socket.socket,
    host: str,
    limits: Limits,
    defaults: Defaults,
    keys: Sequence[str],
    name: str | None,
    weights: str | None,
) -> Server:
    """Return a server of loaded policies.

    Args:
        policies: nobody else may use them as long as it runs.
        bound: where it listens.
        host: what the user calls that.
        limits: what it grants.
        defaults: of requests.
        keys: of clients; none needed where there is none.
        name: of the model; the folder's where not given.
        weights: of requests that name none; those of the export where not given.

    Raises:
        UsageError: a name or weights that cannot be right.
    """
    metrics = Metrics()
    catalogue = make_catalogue(policies, name, weights)
    engine = Engine(policies, limits, metrics)
    service = Service(policies, catalogue, engine, Prompts(policies.template), limits, defaults)
    logging.getLogger("uvicorn.error").addFilter(_is_ours)
    local = is_local(bound.getsockname()[0])
    _allow_files(limits.most_connections + BEYOND + FILES)
    log.info("serving %s at %s, objectives %s", catalogue.name, address(bound), ", ".join(policies.objectives))
    config = uvicorn.Config(
        make_app(service, metrics, keys, host if local else None),
        http=connections(limits),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(limits.idle_seconds),
        timeout_graceful_shutdown=limits.grace + HURRY,
    )
    return Server(config, engine)


def _allow_files(count: int) -> None:
    """Let the process have so many files and connections open, as far as the system allows it to."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < count:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def _is_ours(record: logging.LogRecord) -> bool:
    """Return whether a record tells of the server; clients that do not speak HTTP are told so, and that is all."""
    error = record.exc_info[1] if record.exc_info else None
    return record.levelno >= logging.ERROR and not isinstance(error, LocalProtocolError)


def run(server: Server, bound: socket.socket) -> None:
    """Serve until a signal asks to stop; answers that run have a few seconds to end.

    Raises:
        UserError: the server did not come up.
    """
    with suppress(KeyboardInterrupt):  # the signal once more, when all is done
        server.run(sockets=[bound])
    arrived()
    if not server.started:
        raise UserError("the server did not come up")
