"""Training of towers and rerankers: steps, held-out recall, the best weights kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from embedpress.autoencoder.augment import corrupted, mixed
from embedpress.autoencoder.losses import (
    neighbor_distillation,
    perplexity_scales,
    reconstruction,
    similarity,
)
from embedpress.autoencoder.neighbors import Neighborhoods
from embedpress.autoencoder.network import Tower
from embedpress.autoencoder.record import Record, judged_figure, lost_recall
from embedpress.autoencoder.reranker import Reranker
from embedpress.autoencoder.tensorboard import TrainingLog
from embedpress.autoencoder.validation import Validation

Progress = Callable[[str, int, int], None]

TEMPERATURE = 0.05
"""Of the codes' teacher where none was given: its neighbours count by nearness alone. Latents and
rerankers are taught at a perplexity."""
RERANKER_SHARE = 0.4
"""Of the codes' time budget."""
DECODER_STRIDE = 4
"""One document in so many trains the decoder's network ..."""
FULLY_READ = 256
"""... of a batch of more than so many documents."""


@dataclass(frozen=True)
class TrainerOptions:
    """What a training run is told; see :class:`embedpress.Compressor` for each."""

    metric: str
    epochs: int | None
    time_budget: float | None
    learning_rate: float
    weight_decay: float
    temperature: float | None
    reconstruction_weight: float
    commitment_weight: float
    noise: float
    mask: float
    mixup: float
    monitor: str
    patience: int | None
    seed: int


class Length(NamedTuple):
    """How long a training whose epochs were not given lasts."""

    passes: int
    """Over the training vectors."""
    fewest_steps: int
    """Batches of each kind, however few vectors there are."""

    def steps(self, epochs: int | None, neighborhoods: Neighborhoods) -> int:
        """Steps of a training: those of `epochs`, or of this length."""
        per_epoch = neighborhoods.steps_per_epoch
        if epochs is not None:
            return epochs * per_epoch
        return max(self.passes * per_epoch, self.fewest_steps * neighborhoods.kinds)


LENGTHS = {"latents": Length(80, 600), "codes": Length(60, 1200), "reranker": Length(90, 1200)}


@dataclass(frozen=True)
class Trainer:
    """Trainings on the same vectors, judged by the same held-out queries.

    Parameters
    ----------
    neighborhoods : Neighborhoods
        Of the training vectors.
    validation : Validation or None
        None where there are too few vectors to hold any out: the last weights stay.
    options : TrainerOptions
        Its time budget is that of all trainings together.
    device : torch.device
    with_latents, with_codes, with_reranker : bool
        What shares the time budget.
    progress : callable, optional
        Called with a training's name, the steps done and the steps planned.
    log : TrainingLog, optional
        Told of every step and evaluation.
    """

    neighborhoods: Neighborhoods
    validation: Validation | None
    options: TrainerOptions
    device: torch.device
    with_latents: bool
    with_codes: bool
    with_reranker: bool
    progress: Progress | None = None
    log: TrainingLog | None = None

    def tower(self, name: str, tower: Tower) -> list[Record]:
        """Train `tower` in place and leave it with its best weights.

        Returns
        -------
        list of dict
            One record an evaluation: step, seconds, loss and its parts, held-out recall.
        """
        validation, device = self.validation, self.device
        tower.to(device)
        latents = tower.quantizer is None
        return self._descend(
            name,
            tower,
            lambda rng: _tower_losses(tower, self.neighborhoods, self.options, rng, device),
            _groups(tower, self.options),
            self._share(1 - RERANKER_SHARE if self.reranks and not latents else 1.0),
            LENGTHS["latents" if latents else "codes"],
            None if validation is None else lambda: validation.recalls(tower, device),
        )

    def reranker(self, reranker: Reranker, tower: Tower) -> list[Record]:
        """Train `reranker` for the codes of `tower`, which stay; as :meth:`tower` otherwise.

        Where :attr:`reranks` says so.
        """
        validation, device = self.validation, self.device
        assert validation is not None
        reranker.to(device)
        return self._descend(
            "reranker",
            reranker,
            lambda rng: _reranker_losses(
                reranker, tower, self.neighborhoods, self.options, rng, device
            ),
            reranker.parameter_groups(self.options.learning_rate, self.options.weight_decay),
            self._share(RERANKER_SHARE),
            LENGTHS["reranker"],
            lambda: validation.reranked(tower, reranker, device),
        )

    @property
    def reranks(self) -> bool:
        """Whether a reranker is wanted, and recall can tell if it helps and decides."""
        decides = self.validation is not None and self.options.monitor == "recall"
        return self.with_reranker and decides

    def _share(self, share: float) -> float:
        """Seconds of a part of what latents, or codes and reranker, may take."""
        if self.options.time_budget is None:
            return math.inf
        both = self.with_latents and self.with_codes
        return self.options.time_budget * share / (2 if both else 1)

    def _descend(
        self,
        name: str,
        module: Tower | Reranker,
        losses: Callable[[np.random.Generator], Iterator[dict[str, Tensor]]],
        groups: list[dict[str, Any]],
        budget: float,
        length: Length,
        measure: Callable[[], Record] | None,
    ) -> list[Record]:
        """Steps down the losses of a module, which is left with its best weights."""
        options = self.options
        steps = length.steps(options.epochs, self.neighborhoods)
        torch.manual_seed(options.seed)
        parts_of = losses(np.random.default_rng(options.seed))
        log = None if self.log is None else self.log.tower(name)
        every = max(1, min(steps // 10, 250))
        history: list[Record] = []
        best = _Best(options, module)
        sums: dict[str, float] = {}
        counted = step = 0
        started = time.monotonic()

        def evaluate() -> bool:
            record: Record = {"step": step, "seconds": round(time.monotonic() - started, 3)}
            record |= {name: value / counted for name, value in sums.items() if counted}
            if measure is not None:
                record |= measure()
            history.append(record)
            if log is not None:
                log.evaluation(record)
            return best.update(record, module)

        evaluate()
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        rates = [group["lr"] for group in optimizer.param_groups]
        began = time.monotonic()
        while steps:
            done = max(step / steps, (time.monotonic() - began) / budget)
            if done >= 1:
                break
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * _schedule(step, done)
            module.train()
            parts = next(parts_of)
            optimizer.zero_grad(set_to_none=True)
            parts["loss"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            found = {name: float(value.detach()) for name, value in parts.items()}
            for part, value in found.items():
                sums[part] = sums.get(part, 0.0) + value
            step, counted = step + 1, counted + 1
            if log is not None:
                log.step(step, found, optimizer.param_groups[0]["lr"])
            if self.progress is not None:
                self.progress(name, max(step, int(done * steps)), steps)
            if step % every == 0:
                stop = evaluate()
                sums, counted = {}, 0
                if stop:
                    break
        if counted:
            evaluate()
        best.restore(module)
        module.eval()
        return history


def _tower_losses(
    tower: Tower,
    neighborhoods: Neighborhoods,
    options: TrainerOptions,
    rng: np.random.Generator,
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    temperature = options.temperature
    if temperature is None and tower.quantizer is not None:
        temperature = TEMPERATURE
    for asked, documents, own in _examples(neighborhoods, options, rng, device):
        latent = tower.encoder(documents)
        commitment = latent.new_zeros(())
        if tower.quantizer is not None:
            latent, commitment = tower.quantizer.straight_through(latent)
        queries = tower.query_encoder(corrupted(asked, options.noise, options.mask, options.metric))
        teacher, scale = _teacher(asked, documents, own, temperature, options.metric)
        sizes = tower.temperatures()
        distillation = latent.new_zeros(())
        for size, log_scale in sizes:
            student = similarity(queries[:, :size], latent[:, :size], options.metric)
            student = student * log_scale.exp() * scale
            distillation = distillation + neighbor_distillation(teacher, student, own) / len(sizes)
        # The decoder's linear part shapes the latents; its network only learns to read them, for
        # which a part of the batch is enough.
        shaping = reconstruction(documents, tower.decoder.linear(latent))
        read = slice(None, None, DECODER_STRIDE if len(latent) > FULLY_READ else 1)
        error = reconstruction(documents[read], tower.decoder(latent[read].detach()))
        loss = (
            distillation
            + options.reconstruction_weight * (shaping + error)
            + options.commitment_weight * commitment
        )
        yield {"loss": loss, "distillation": distillation, "reconstruction": error}


def _reranker_losses(
    reranker: Reranker,
    tower: Tower,
    neighborhoods: Neighborhoods,
    options: TrainerOptions,
    rng: np.random.Generator,
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    assert tower.quantizer is not None
    tower.eval()
    # A code is a coarser thing than a vector, and bears less mixing before it is another's.
    milder = replace(options, mixup=options.mixup / 4)
    for asked, documents, own in _examples(neighborhoods, milder, rng, device):
        with torch.no_grad():
            words = tower.quantizer.lookup(tower.quantizer.assign(tower.encoder(documents)))
        queries = reranker.queries(corrupted(asked, options.noise, options.mask, options.metric))
        teacher, scale = _teacher(asked, documents, own, options.temperature, options.metric)
        student = similarity(queries, reranker.documents(words), options.metric)
        loss = neighbor_distillation(teacher, student * reranker.log_scale.exp() * scale, own)
        yield {"loss": loss, "distillation": loss}


def _examples(
    neighborhoods: Neighborhoods,
    options: TrainerOptions,
    rng: np.random.Generator,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless batches: who asks, the documents, and which of these is the asker itself."""
    vectors = torch.from_numpy(neighborhoods.vectors).to(device)
    queries = neighborhoods.queries
    sample = None if queries is None else torch.from_numpy(queries).to(device)
    for batch in neighborhoods.batches(rng):
        asking = sample if batch.asked and sample is not None else vectors
        documents, partners = vectors[batch.documents], vectors[batch.partners]
        # A sample query is no document: none of them is its own.
        same = (batch.anchors[:, None] == batch.documents[None, :]) & (not batch.asked)
        yield (
            asking[batch.anchors],
            mixed(documents, partners, options.mixup, options.metric),
            torch.from_numpy(same).to(device),
        )


def _teacher(
    asked: Tensor, documents: Tensor, own: Tensor, temperature: float | None, metric: str
) -> tuple[Tensor, Tensor | float]:
    """Scores to learn, and what a student's are multiplied by to be compared with them."""
    scores = similarity(asked, documents, metric)
    scale = perplexity_scales(scores, own) if temperature is None else 1 / temperature
    return scores * scale, scale


def _groups(tower: Tower, options: TrainerOptions) -> list[dict[str, Any]]:
    # The linear parts start at an optimum, the residual parts at nothing: unlike rates.
    residual: list[Tensor] = []
    linear: list[Tensor] = []
    for network in (tower.encoder, tower.query_encoder, tower.decoder):
        residual += network.mlp.parameters()
        linear += network.linear.parameters()
    rate = options.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": residual, "lr": rate, "weight_decay": options.weight_decay},
        {"params": linear, "lr": rate / 5, "weight_decay": 0.0},
        {
            "params": [tower.log_scale, *([tower.nested_log_scales] if tower.nested_sizes else [])],
            "lr": rate * 10,
            "weight_decay": 0.0,
        },
    ]
    if tower.quantizer is not None:
        groups.append({"params": [tower.quantizer.codebooks], "lr": rate, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def _schedule(step: int, done: float) -> float:
    """Linear warm-up over 100 steps, then half a cosine down to 2% of the rate."""
    return min(1.0, (step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


class _Best:
    """The best weights so far by the monitored figure, and when to stop waiting for better.

    Weights of a lower held-out recall than the start's give way to these: see
    :func:`embedpress.autoencoder.judge.kept_record`, which finds the same in a history.
    """

    def __init__(self, options: TrainerOptions, module: nn.Module) -> None:
        self.monitor, self.patience = options.monitor, options.patience
        self.score = -math.inf
        self.waited = 0
        self.start: Record | None = None
        self.best: Record | None = None
        self.last: Record = {}
        self.first_weights = self.weights = copy.deepcopy(module.state_dict())

    def update(self, record: Record, module: nn.Module) -> bool:
        """Note a record; True where training should stop."""
        self.start, self.last = self.start or record, record
        value = judged_figure(record, self.monitor)
        if not math.isfinite(value):
            return False
        score = -value if self.monitor == "loss" else value
        if score > self.score:
            self.score, self.waited, self.best = score, 0, record
            self.weights = copy.deepcopy(module.state_dict())
            return False
        self.waited += 1
        return self.patience is not None and self.waited > self.patience

    def restore(self, module: nn.Module) -> None:
        """Leave the module with the weights to keep; the last ones where nothing was measured."""
        if self.start is not None and lost_recall(self.best or self.last, self.start):
            module.load_state_dict(self.first_weights)
        elif self.best is not None:
            module.load_state_dict(self.weights)
