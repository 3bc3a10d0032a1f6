"""How a model's token vectors become one embedding, read from a sentence-transformers folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedpress.errors import FormatError, UsageError
from embedpress.vectors.document import read_json

POOLINGS = ("mean", "cls", "max")
_OLDER_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Recipe:
    """What to do around the network.

    Attributes
    ----------
    folder : Path
        Where config.json, the tokenizer and the weights lie.
    pooling : str
        ``"mean"``, ``"cls"`` or ``"max"``, over the tokens that are not padding.
    normalize : bool
        Whether embeddings are scaled to length one.
    max_length : int or None
        Tokens kept of a text, special tokens counted; None where the folder does not say.
    lower_case : bool
        Whether texts are lower-cased before the tokenizer.
    prompt : str
        Put before every text.
    """

    folder: Path
    pooling: str = "mean"
    normalize: bool = False
    max_length: int | None = None
    lower_case: bool = False
    prompt: str = ""

    def prepared(self, text: str) -> str:
        """A text as the tokenizer takes it."""
        return self.prompt + (text.lower() if self.lower_case else text)


def read_recipe(folder: Path, *, pooling: str | None = None) -> Recipe:
    """Read a model folder's recipe.

    Parameters
    ----------
    folder : Path
        Of a transformers or a sentence-transformers model.
    pooling : str, optional
        Overrides what the folder says.

    Returns
    -------
    Recipe
        Mean pooling without normalisation where the folder says nothing.

    Raises
    ------
    UsageError
        For a folder that holds no model, or a step that cannot be reproduced here (a dense
        layer, another pooling).
    FormatError
        For files of the folder that are not what they should be.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise UsageError(f"pooling must be one of {', '.join(POOLINGS)}, not {pooling!r}")
    recipe = Recipe(folder, pooling or "mean")
    if (folder / "modules.json").is_file():
        for module in _modules(folder):
            recipe = _add(recipe, folder, module, pooling)
    if not (recipe.folder / "config.json").is_file():
        raise UsageError(f"{folder}: not a model folder (no config.json in it)")
    return replace(recipe, prompt=_prompt(folder))


def _modules(folder: Path) -> list[dict[str, str]]:
    modules = read_json(folder / "modules.json")
    if not isinstance(modules, list) or not modules:
        raise FormatError(f"{folder / 'modules.json'}: not a list of modules")
    for module in modules:
        texts = isinstance(module, dict) and all(
            isinstance(module.get(key), str) for key in ("path", "type")
        )
        if not texts or Path(module["path"]).is_absolute() or ".." in Path(module["path"]).parts:
            raise FormatError(f"{folder / 'modules.json'}: not a list of modules with paths")
    return modules


def _add(recipe: Recipe, root: Path, module: dict[str, str], pooling: str | None) -> Recipe:
    kind, folder = module["type"].rsplit(".", 1)[-1], root / module["path"]
    if kind == "Transformer":
        found = sorted(folder.glob("sentence_*_config.json"))
        options = _read_object(found[0]) if found else {}
        length = options.get("max_seq_length")
        if length is not None and (not isinstance(length, int) or length < 1):
            raise FormatError(f"{found[0]}: max_seq_length {length!r}")
        return replace(
            recipe,
            folder=folder,
            max_length=length,
            lower_case=bool(options.get("do_lower_case", False)),
        )
    if kind == "Pooling":
        return replace(recipe, pooling=pooling or _pooling(folder / "config.json"))
    if kind == "Normalize":
        return replace(recipe, normalize=True)
    raise UsageError(f"{root}: its module {kind} is not supported, only pooling and normalisation")


def _pooling(path: Path) -> str:
    config = _read_object(path)
    modes: Any = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLDER_KEYS.items() if config.get(key)]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in POOLINGS:
        raise UsageError(
            f"{path}: pooling {modes!r} is not supported; choose pooling= from {POOLINGS}"
        )
    return str(modes[0])


def _prompt(folder: Path) -> str:
    path = folder / "config_sentence_transformers.json"
    options = _read_object(path) if path.is_file() else {}
    name, prompts = options.get("default_prompt_name"), options.get("prompts")
    if name is None:
        return ""
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise FormatError(f"{path}: default_prompt_name {name!r} is not among its prompts")
    return str(prompts[name])


def _read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise FormatError(f"{path}: not a JSON object")
    return value
