"""Command serve: the policies of a run behind OpenAI's HTTP interface, with a weight per request, and a page."""

import logging
from dataclasses import replace
from typing import Literal

from sipo_pl.interop.numbers import NonNegativeFloat, NonNegativeInt, Port, PositiveFloat, PositiveInt, PositiveShare
from sipo_pl.messages.errors import UserError

log = logging.getLogger("sipo_pl")

EXTRA = "pip install 'sipo_pl[serve]'"


def serve(
    model: str,
    weights: str | None = None,
    host: str = "127.0.0.1",
    port: Port = 8000,
    name: str | None = None,
    api_key_file: str | None = None,
    policies: Literal["align", "realign"] | None = None,
    base_model: str | None = None,
    divergence: str | None = None,
    temperature: NonNegativeFloat = 0.0,
    top_p: PositiveShare = 1.0,
    max_new_tokens: PositiveInt = 256,
    max_length: PositiveInt | None = None,
    slots: PositiveInt = 16,
    queue: NonNegativeInt = 256,
    timeout: PositiveFloat = 300.0,
    body_bytes: PositiveInt = 1 << 20,
    dtype: Literal["float32", "bfloat16"] | None = None,
    device: str | None = None,
) -> None:
    """Serve the policies of a run over HTTP, fused at the weights that each request names, and a page to try them.

    Args:
        model: run folder, or folder of policies that export wrote
        weights: of requests that name none, such as helpful=0.7,harmless=0.3; those of the export where not given
        host: address to listen at; another than this machine's own opens the server to a network
        port: port to listen at; zero takes a free one
        name: what the model is called; the folder's name where not given
        api_key_file: file of keys, one a line, one of which clients must send; nobody needs one where not given
        policies: of the first alignment (align) or the re-alignment; the latter where it is complete
        base_model: folder or hub name in the place of the base model that the folder names
        divergence: such as my_rules.ChiSquared: a class from outside this package that fuses, whose code you trust
        temperature: of requests that give none; zero is greedy
        top_p: of requests that give none; share of probability that the likeliest tokens must hold to be drawn from
        max_new_tokens: longest answer in tokens of requests that give none
        max_length: longest prompt and answer in tokens; the model's context, 2048 at most, where not given
        slots: requests that are decoded at once
        queue: requests that may wait beside them; more are refused
        timeout: seconds that a request may take, waiting included
        body_bytes: longest body of a request
        dtype: dtype of the base model; the run's where not given
        device: such as cpu or cuda:1; a GPU where there is one
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"serving needs packages that are not installed ({error.name}): {EXTRA}") from None
    from sipo_pl.messages.logs import quiet_libraries
    from sipo_pl.serve.answering import Defaults
    from sipo_pl.serve.guard import is_local, read_keys
    from sipo_pl.serve.limits import Limits
    from sipo_pl.serve.server import make_server, open_socket, run
    from sipo_pl.use.api import load

    quiet_libraries()
    limits = Limits(slots, queue, max_length or Limits.max_length, timeout, body_bytes)
    keys = read_keys(api_key_file)
    with open_socket(host, port) as bound:
        loaded = load(
            model, base_model=base_model, policies=policies, divergence=divergence, dtype=dtype, device=device
        )
        if max_length is None:
            limits = replace(limits, max_length=min(limits.max_length, loaded.context_length))
        loaded.decoding(temperature, top_p, max_new_tokens, limits.max_length)  # says what is wrong with them
        if not keys and not is_local(bound.getsockname()[0]):
            log.warning("%s: anybody who reaches this address may ask; --api_key_file asks for a key", host)
        server = make_server(
            loaded, bound, host, limits, Defaults(temperature, top_p, max_new_tokens), keys, name, weights
        )
        run(server, bound)
