"""Command export: a weight of a finished run as models that other tools load."""

import logging
from pathlib import Path
from typing import Literal

from sipo_pl.interop.numbers import NonNegativeInt, PositiveInt
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.method.weights import parse_point

log = logging.getLogger("sipo_pl")


def export(
    run: str,
    weights: str,
    out: str | None = None,
    kinds: list[Literal["interpolated", "sum", "merged", "policies"]] | None = None,
    policies: Literal["align", "realign"] | None = None,
    base_model: str | None = None,
    divergence: str | None = None,
    base_name: str | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
    prompts: NonNegativeInt = 32,
    max_new_tokens: PositiveInt = 64,
    push_to_hub: str | None = None,
    public: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a weight of a run as an adapter, a merged model, or policies with the file that fuses them.

    Args:
        run: run folder
        weights: such as helpful=0.7,harmless=0.3, or 0.7,0.3 in the objectives' order
        out: folder to be made, of one folder for each kind; export/<weights> in the run folder where not given
        kinds: interpolated (A and B averaged), sum (exact sum of the effects), merged (a whole model) and policies
            (fused while decoding); all that are possible where not given
        policies: of the first alignment (align) or the re-alignment; the latter where it is complete
        base_model: folder or hub name in the place of the base model that the run names
        divergence: such as my_rules.ChiSquared: a class from outside this package that fuses, whose code you trust
        base_name: what cards and adapters call the base model, such as its name on the hub; its path where not given
        dtype: dtype of the merged model; the run's where not given
        prompts: test prompts on which the distance from true fusion is measured; zero measures nothing
        max_new_tokens: longest answer in that measurement
        push_to_hub: repository owner/name that the folder is uploaded to; with one kind only
        public: let a repository that is made for it be public
        overwrite: replace folders of an earlier export
    """
    if prompts < 0 or max_new_tokens < 1:
        raise UsageError("--prompts must not be negative, and --max_new_tokens at least one")
    if push_to_hub is not None:
        _check_repository(push_to_hub, kinds)
    from sipo_pl.messages.logs import quiet_libraries
    from sipo_pl.use.export import Plan, available_kinds, export_folders
    from sipo_pl.use.source import open_source

    quiet_libraries()
    source = open_source(Path(run), base_model=base_model, policies=policies, divergence=divergence)
    if source.recipe is None:
        raise UserError(f"{run}: exported policies; export reads the run folder that they came from")
    point = parse_point(weights, source.names)
    asked = available_kinds(source, kinds)
    name = "_".join(f"{one}-{weight:g}" for one, weight in zip(source.names, point, strict=True))
    folder = Path(out) if out else Path(run) / "export" / name
    for kind in asked:
        _check_output(folder / kind, overwrite=overwrite)
    plan = Plan(asked, point, base_name, dtype, prompts, max_new_tokens)
    folders = export_folders(source, plan, folder)
    if push_to_hub is not None:
        _push(next(iter(folders.values())), push_to_hub, public=public)


def _check_output(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not overwrite:
        raise UserError(f"{folder}: is there already (--overwrite replaces it)")
    if not (folder / "README.md").is_file() or not (folder / "tokenizer_config.json").is_file():
        raise UserError(f"{folder}: no earlier export, so it is not overwritten; remove it or choose another --out")


def _check_repository(name: str, kinds: list[Literal["interpolated", "sum", "merged", "policies"]] | None) -> None:
    if name.count("/") != 1 or not all(name.split("/")):
        raise UsageError(f"--push_to_hub {name!r}: expected owner/name")
    if kinds is None or len(kinds) != 1:
        raise UsageError("--push_to_hub: a repository holds one model; choose it by --kinds, such as --kinds policies")


def _push(folder: Path, repository: str, *, public: bool) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        api = HfApi()
        api.create_repo(repository, private=not public, exist_ok=True)
        info = api.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled, OSError) as error:
        first = str(error).strip().split("\n")[0]
        raise UserError(f"--push_to_hub {repository}: {first}; the folder {folder} is whole") from None
    log.info("export: uploaded to %s", info)
