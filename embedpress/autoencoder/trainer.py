"""One training run of one tower: batches, steps, held-out recall, the best weights kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embedpress.autoencoder.augment import corrupted, mixed
from embedpress.autoencoder.losses import neighbor_distillation, reconstruction, similarity
from embedpress.autoencoder.neighbors import Batch, Neighborhoods
from embedpress.autoencoder.network import Tower
from embedpress.autoencoder.polish import polish_groups, polish_losses
from embedpress.autoencoder.record import Record, judged_figure, lost_recall
from embedpress.autoencoder.tensorboard import TowerLog
from embedpress.autoencoder.validation import Validation

PASSES, FEWEST_STEPS = 40, 600
"""Of a training whose epochs were not given."""
POLISHED = 8
"""One step of polishing for so many of training ..."""
POLISHED_SHARE = 0.25
"""... or this share of a time budget, since such a step takes longer."""
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
    temperature: float
    reconstruction_weight: float
    commitment_weight: float
    noise: float
    mask: float
    mixup: float
    monitor: str
    patience: int | None
    seed: int


def planned_steps(epochs: int | None, steps_per_epoch: int) -> int:
    """Steps of a training: those of `epochs`, or 40 passes and 600 steps at the least."""
    if epochs is None:
        return max(PASSES * steps_per_epoch, FEWEST_STEPS)
    return epochs * steps_per_epoch


def train_tower(
    tower: Tower,
    neighborhoods: Neighborhoods,
    validation: Validation | None,
    options: TrainerOptions,
    *,
    device: torch.device,
    on_step: Callable[[int, int], None] | None = None,
    log: TowerLog | None = None,
) -> list[Record]:
    """Train `tower` in place and leave it with its best weights.

    Parameters
    ----------
    tower : Tower
    neighborhoods : Neighborhoods
        Of the training vectors.
    validation : Validation or None
        None where there are too few vectors to hold any out: the last weights stay.
    options : TrainerOptions
    device : torch.device
    on_step : callable, optional
        Called with the steps done and the steps planned.
    log : TowerLog, optional
        Told of every step and evaluation.

    Returns
    -------
    list of dict
        One record an evaluation: step, seconds, loss and its parts, held-out recall.
    """
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    phases = _phases(tower, neighborhoods, validation, options, rng, device)
    total = sum(phase.steps for phase in phases)
    every = max(1, min(total // 10, 250))
    history: list[Record] = []
    best = _Best(options, tower)
    sums: dict[str, float] = {}
    counted = step = 0
    started = time.monotonic()

    def evaluate() -> bool:
        record: Record = {"step": step, "seconds": round(time.monotonic() - started, 3)}
        record |= {name: value / counted for name, value in sums.items() if counted}
        if validation is not None:
            record |= validation.recalls(tower, device)
        history.append(record)
        if log is not None:
            log.evaluation(record)
        return best.update(record, tower)

    evaluate()
    before = 0
    for phase in phases:
        optimizer = torch.optim.AdamW(phase.groups, betas=(0.9, 0.98), weight_decay=0.0)
        rates = [group["lr"] for group in optimizer.param_groups]
        began, phase_step = time.monotonic(), 0
        while True:
            done = max(phase_step / phase.steps, (time.monotonic() - began) / phase.seconds)
            if done >= 1:
                break
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * _schedule(phase_step, done)
            parts = next(phase.losses)
            optimizer.zero_grad(set_to_none=True)
            parts["loss"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            found = {name: float(value.detach()) for name, value in parts.items()}
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
            step, phase_step, counted = step + 1, phase_step + 1, counted + 1
            if log is not None:
                log.step(step, found, optimizer.param_groups[0]["lr"])
            if on_step is not None:
                on_step(before + max(phase_step, int(done * phase.steps)), total)
            if step % every == 0:
                stop = evaluate()
                sums, counted = {}, 0
                if stop:
                    break
        if counted:
            evaluate()
            sums, counted = {}, 0
        # The next phase goes on from the best weights, and this is what is left in the end.
        best.restore(tower)
        before += phase.steps
    tower.eval()
    return history


@dataclass(frozen=True)
class _Phase:
    """Steps of one kind of loss, their parameters at their rates, the seconds they may take."""

    losses: Iterator[dict[str, Tensor]]
    groups: list[dict[str, Any]]
    steps: int
    seconds: float


def _phases(
    tower: Tower,
    neighborhoods: Neighborhoods,
    validation: Validation | None,
    options: TrainerOptions,
    rng: np.random.Generator,
    device: torch.device,
) -> list[_Phase]:
    """Training; for codes polishing too, where held-out recall can tell whether it is a gain."""
    steps = planned_steps(options.epochs, neighborhoods.steps_per_epoch)
    budget = options.time_budget or math.inf
    training = _training_losses(tower, neighborhoods, options, rng, device)
    groups = _groups(tower, options)
    if tower.quantizer is None or validation is None or options.monitor != "recall":
        return [_Phase(training, groups, steps, budget)] if steps else []
    polishing = polish_losses(
        tower,
        tower.quantizer,
        neighborhoods,
        rng,
        temperature=options.temperature,
        noise=options.noise,
        mask=options.mask,
        reconstruction_weight=options.reconstruction_weight,
        device=device,
    )
    polished = polish_groups(tower, tower.quantizer, options.learning_rate)
    phases = (
        _Phase(training, groups, steps, (1 - POLISHED_SHARE) * budget),
        _Phase(polishing, polished, steps // POLISHED, POLISHED_SHARE * budget),
    )
    return [phase for phase in phases if phase.steps]


def _training_losses(
    tower: Tower,
    neighborhoods: Neighborhoods,
    options: TrainerOptions,
    rng: np.random.Generator,
    device: torch.device,
) -> Iterator[dict[str, Tensor]]:
    vectors = torch.from_numpy(neighborhoods.vectors)
    queries = None if neighborhoods.queries is None else torch.from_numpy(neighborhoods.queries)
    for batch in neighborhoods.batches(rng):
        asking = queries if batch.asked and queries is not None else vectors
        tower.train()
        yield _losses(tower, vectors, asking, batch, options, device)


def _losses(
    tower: Tower,
    vectors: Tensor,
    asking: Tensor,
    batch: Batch,
    options: TrainerOptions,
    device: torch.device,
) -> dict[str, Tensor]:
    documents, partners = vectors[batch.documents], vectors[batch.partners]
    clean = mixed(documents, partners, options.mixup, options.metric).to(device)
    asked = asking[batch.anchors].to(device)
    latent = tower.encoder(clean)
    commitment = latent.new_zeros(())
    if tower.quantizer is not None:
        latent, commitment = tower.quantizer.straight_through(latent)
    queries = tower.query_encoder(corrupted(asked, options.noise, options.mask, options.metric))
    # A sample query is no document: none of them is its own.
    same = (batch.anchors[:, None] == batch.documents[None, :]) & (not batch.asked)
    own = torch.from_numpy(same).to(device)
    teacher = similarity(asked, clean, options.metric) / options.temperature
    sizes = tower.temperatures()
    distillation = latent.new_zeros(())
    for size, log_scale in sizes:
        student = similarity(queries[:, :size], latent[:, :size], options.metric)
        student = student * log_scale.exp() / options.temperature
        distillation = distillation + neighbor_distillation(teacher, student, own) / len(sizes)
    # The decoder's linear part shapes the latents; its network only learns to read them, for
    # which a part of the batch is enough.
    shaping = reconstruction(clean, tower.decoder.linear(latent))
    read = slice(None, None, DECODER_STRIDE if len(latent) > FULLY_READ else 1)
    error = reconstruction(clean[read], tower.decoder(latent[read].detach()))
    loss = (
        distillation
        + options.reconstruction_weight * (shaping + error)
        + options.commitment_weight * commitment
    )
    return {"loss": loss, "distillation": distillation, "reconstruction": error}


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

    def __init__(self, options: TrainerOptions, tower: Tower) -> None:
        self.monitor, self.patience = options.monitor, options.patience
        self.score = -math.inf
        self.waited = 0
        self.start: Record | None = None
        self.best: Record | None = None
        self.last: Record = {}
        self.first_weights = self.weights = copy.deepcopy(tower.state_dict())

    def update(self, record: Record, tower: Tower) -> bool:
        """Note a record; True where training should stop."""
        self.start, self.last = self.start or record, record
        value = judged_figure(record, self.monitor)
        if not math.isfinite(value):
            return False
        score = -value if self.monitor == "loss" else value
        if score > self.score:
            self.score, self.waited, self.best = score, 0, record
            self.weights = copy.deepcopy(tower.state_dict())
            return False
        self.waited += 1
        return self.patience is not None and self.waited > self.patience

    def restore(self, tower: Tower) -> None:
        """Leave the tower with the weights to keep; the last ones where nothing was measured.

        What trains on from there has all its patience.
        """
        self.waited = 0
        if self.start is not None and lost_recall(self.best or self.last, self.start):
            tower.load_state_dict(self.first_weights)
        elif self.best is not None:
            tower.load_state_dict(self.weights)
