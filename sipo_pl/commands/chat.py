"""Command chat: talk with the policies of a run, fused at weights that may change in between."""

from typing import Literal

from sipo_pl.interop.numbers import NonNegativeFloat, PositiveInt, PositiveShare

COMPARED = 8  # answers that are decoded at once, side by side


def chat(
    model: str,
    weights: str | None = None,
    policies: Literal["align", "realign"] | None = None,
    base_model: str | None = None,
    divergence: str | None = None,
    system: str | None = None,
    temperature: NonNegativeFloat = 0.0,
    top_p: PositiveShare = 1.0,
    max_new_tokens: PositiveInt = 256,
    max_length: PositiveInt | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
    device: str | None = None,
) -> None:
    """Talk with the policies of a run, fused while decoding.

    Args:
        model: run folder, or folder of policies that export wrote
        weights: such as helpful=0.7,harmless=0.3, or 0.7,0.3 in their order; those of the export where not given
        policies: of the first alignment (align) or the re-alignment; the latter where it is complete
        base_model: folder or hub name in the place of the base model that the folder names
        divergence: such as my_rules.ChiSquared: a class from outside this package that fuses, whose code you trust
        system: system message, for a chat template
        temperature: divides the fused scores; zero is greedy
        top_p: share of probability that the likeliest tokens must hold to be drawn from
        max_new_tokens: longest answer in tokens
        max_length: longest conversation and answer in tokens; the model's context where not given
        dtype: dtype of the base model; the run's where not given
        device: such as cpu or cuda:1; a GPU where there is one
    """
    from sipo_pl.messages.logs import quiet_libraries
    from sipo_pl.use.api import load
    from sipo_pl.use.chat import Conversation
    from sipo_pl.use.chat_screen import Screen

    quiet_libraries()
    loaded = load(model, base_model=base_model, policies=policies, divergence=divergence, dtype=dtype, device=device)
    point = loaded.fuse(weights).weights
    decoding = loaded.decoding(temperature, top_p, max_new_tokens, max_length)
    with loaded.stream(COMPARED) as stream:
        Screen(Conversation(loaded, stream, point, decoding, system)).run()
