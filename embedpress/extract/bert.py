"""A BERT-like network and its tokenizer, loaded through transformers and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from embedpress.errors import (
    EmbedpressError,
    FormatError,
    MissingDependencyError,
    UsageError,
    first_line,
)
from embedpress.extract import torchvision_trap
from embedpress.extract.bert_door import check_model
from embedpress.extract.recipe import Recipe
from embedpress.vectors.files import sha256_of

# For models that state no limit (relative positions); BERT's own.
_FALLBACK_LENGTH = 512


def load_bert(recipe: Recipe) -> tuple[Any, Any]:
    """Load the network and the tokenizer of a model folder.

    Parameters
    ----------
    recipe : Recipe

    Returns
    -------
    tuple
        The torch module, in float32 and for inference, and the transformers tokenizer.

    Raises
    ------
    FormatError
        For a folder that transformers cannot load, or weights that lack tensors.
    UsageError
        For a network that is no text encoder.
    """
    torchvision_trap.prepare()
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError(
            "text extraction needs transformers: pip install 'embedpress[train]'"
        ) from error
    folder = str(recipe.folder)
    try:
        with _quiet():
            check_model(recipe.folder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model, report = transformers.AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except EmbedpressError:
        raise
    except Exception as error:  # transformers raises anything for a folder that is no model
        line = first_line(error)
        raise FormatError(f"{folder}: not a model that transformers can load ({line})") from error
    # The pooler is not used; any other weight left out would be random numbers in the result.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise FormatError(f"{folder}: the weights lack {len(missing)} tensors, as {missing[0]}")
    if model.config.is_encoder_decoder or not getattr(model.config, "hidden_size", None):
        raise UsageError(f"{folder}: a {model.config.model_type} is not a BERT-like text encoder")
    return model.float().eval().requires_grad_(False), tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers import utils

    logging: Any = utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def length_limit(asked: int | None, recipe: Recipe, model: Any, tokenizer: Any) -> int:
    """How many tokens of a text are kept: as asked, as the folder says, or all that fit.

    Raises
    ------
    UsageError
        If more are asked for than the network has positions, or too few to hold a token.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    limit = limit if isinstance(limit, int) and limit > 0 else None
    positions = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    offset = getattr(positions, "padding_idx", None)
    if limit is not None and offset is not None:
        # RoBERTa's positions start behind its padding index: 514 of them hold 512 tokens.
        limit -= offset + 1
    if asked is not None:
        least = tokenizer.num_special_tokens_to_add() + 1
        if asked < least or (limit is not None and asked > limit):
            raise UsageError(
                f"max_length={asked}: this model takes {least} to {limit or 'any number of'} tokens"
            )
        return asked
    stated = recipe.max_length or min(tokenizer.model_max_length, limit or _FALLBACK_LENGTH)
    return min(stated, limit) if limit is not None else int(stated)


def fingerprints(recipe: Recipe) -> tuple[str, str]:
    """The sha256 of the weights, and one of all that decides over a token's vector."""
    weights = sorted(recipe.folder.glob("*.safetensors"))
    sums = [sha256_of(file) for file in weights]
    whole = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
    parts: dict[str, Any] = {
        name: sha256_of(recipe.folder / name)
        for name in (*names, "merges.txt", "special_tokens_map.json")
        if (recipe.folder / name).is_file()
    }
    parts |= {"weights": whole, "prompt": recipe.prompt, "lower_case": recipe.lower_case}
    return whole, hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
