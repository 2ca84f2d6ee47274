"""Accidents of the released code, each behind a switch of its own, for numbers that were made with them."""

from dataclasses import dataclass

from sipo_pl.interop.numbers import PositiveInt


@dataclass(frozen=True)
class Compat:
    """What the released code does by accident; all off is the method as it is meant. See `parts` too.

    Args:
        tie_is_conflict: without a mixture, a tie against a preference counts as a conflict
        map_batch: rows of a map batch, at whose borders a prompt loses pairs; none where not given
        map_shards: processes over which the rows are spread before they are batched
        zero_share_takes_all: with `take: last`, a share of 0 takes all conflicting pairs, and a share of 1 all others
        keep_degenerate: pairs with an empty response, or with two equal ones, stay
        loose_length_filter: the length filter tokenises prompt and response apart, BOS twice, no template and no EOS
        truncate_sft: SFT cuts rows that are too long, which then lack EOS
        common_prefix_mask: what chosen and rejected begin with alike is masked in both
        padded_nll: the NLL term is divided by the padded length of the micro-batch, in validation too
        step_count_warmup: `model.warmup` is a number of steps, and the first step has a learning rate of zero
        no_final_validation: the end of a fit is neither validated nor saved; `saving.keep` must be best
        raw_logits: greedy decoding fuses cumulative logits in place of log-probabilities; beams and samples do not
        unscaled_alpha: the fused score of the alpha-divergence lacks its factor 1/alpha
        search_markers: a response begins and ends where the marks of the prompt's format first appear, even inside it
        keep_marked: cut, collapsed, empty and duplicate texts are reviewed, scored and may be kept
        compounding_soups: of the interpolated policies that answer (`model.soups`), each starts from the one before it;
            scoring never does
        merged_reference: re-alignment starts from base models with the first adapter merged, rounded to `dtype`; each
            is written as `model/` beside its new adapter
    """

    tie_is_conflict: bool = False
    map_batch: PositiveInt | None = None
    map_shards: PositiveInt = 1
    zero_share_takes_all: bool = False
    keep_degenerate: bool = False
    loose_length_filter: bool = False
    truncate_sft: bool = False
    common_prefix_mask: bool = False
    padded_nll: bool = False
    step_count_warmup: bool = False
    no_final_validation: bool = False
    raw_logits: bool = False
    unscaled_alpha: bool = False
    search_markers: bool = False
    keep_marked: bool = False
    compounding_soups: bool = False
    merged_reference: bool = False
