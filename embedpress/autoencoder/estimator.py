"""The compressor as a scikit-learn estimator: fit, transform, encode and their inverses."""

from __future__ import annotations

import contextlib
import numbers
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from embedpress.autoencoder.fitted import TrainedTowers
from embedpress.autoencoder.hub import HubMixin
from embedpress.autoencoder.judge import leave_one_out_recall
from embedpress.autoencoder.neighbors import Neighborhoods
from embedpress.autoencoder.network import InputScale, Tower
from embedpress.autoencoder.options import AUTO, check_options
from embedpress.autoencoder.record import Record, kept_record, runs
from embedpress.autoencoder.reranker import Reranker
from embedpress.autoencoder.sizing import DEFAULT_TARGET, chosen_size, ladder, train_sizes
from embedpress.autoencoder.tensorboard import TrainingLog
from embedpress.autoencoder.towers import TowerBuilder
from embedpress.autoencoder.trainer import Progress, Trainer, TrainerOptions
from embedpress.autoencoder.validation import FEWEST_QUERIES, Holdout, Validation
from embedpress.errors import InputError, TargetWarning, UsageError
from embedpress.threads import faiss_threads
from embedpress.vectors import check_vectors

Floats = NDArray[np.float32]

SEEDS, NEIGHBORS, ANCHORS = 16, 64, 512
"""A batch: the nearest 64 vectors of each of 16 seeds, and 512 of these as anchors."""


class Compressor(HubMixin, TrainedTowers):
    """Autoencoder that compresses embeddings to latents and codes and keeps their neighbours.

    Two towers are trained, one for latents (floats) and one for codes (bytes). Each starts
    at the best linear answer (PCA; a balanced rotation with k-means codebooks) and leaves it
    by a residual network trained to keep every vector's neighbour distribution.

    Parameters
    ----------
    n_components : int or None, default 64
        Dimensions of a latent, fewer than the embeddings'. None trains no latents.
    nested_sizes : sequence of int, default ()
        Sizes below `n_components` that are trained too: the first so many floats of a latent,
        scored against as many of a query's, are a latent of that size (Kusupati et al.,
        "Matryoshka Representation Learning", 2022).
    code_size : int, "auto" or None, default 32
        Bytes of a code. "auto" trains several sizes and takes the smallest of 8, 16, 24,
        32, 48, 64, 96, 128, 192 and 256 that reaches `target_recall`; where none does, the
        largest, with a :class:`~embedpress.errors.TargetWarning`. None trains no codes.
    metric : {"cosine", "ip", "l2"}, default "cosine"
        What "near" means among the embeddings.
    reranker : bool, default True
        Train a second network for codes, which reorders the first hits of a scan by their codes
        alone; see :class:`~embedpress.autoencoder.reranker.Reranker`. It is kept where held-out
        recall says that it helps.
    hidden_sizes : sequence of int or None, default None
        Hidden layers of each residual network; empty for a purely linear compressor. None is one
        of 4,096 for latents and reranker, of 512 for the encoder of codes, which has to be fast,
        and of 1,024 for their query encoder and decoder.
    dropout : float, default 0
        Share of hidden units dropped while training.
    batch_norm : bool, default False
        Batch normalisation of the hidden layers.
    noise, mask : float, default 0
        Denoising: training queries get Gaussian noise of up to `noise` times their norm and
        lose up to a share `mask` of their entries, at strengths drawn anew for each; documents
        and targets stay clean. Held-out recall that decides is then measured with corrupted
        queries (``noisy_recall`` in the history). It helps only where little of a query is left
        and costs clean recall, see ``benchmarks/denoising.py`` (after Vincent et al.,
        "Extracting and Composing Robust Features with Denoising Autoencoders", 2008).
    mixup : float, default 0.2
        Standard deviation of the step that a training vector takes towards (or away from)
        a vector of its neighbourhood, before the teacher scores it: augmentation against
        overfitting, after Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018),
        and Chawla et al., "SMOTE" (2002). 0 for none.
    target_recall : float or None, default None
        Held-out recall@10 that a `code_size` of "auto" has to reach, in (0, 1]; None is
        0.9. It is measured among at most 20,000 of the training vectors: among more
        vectors a search finds less, so leave a margin.
    groups : int or None, default None
        Slices of the code's latent with codebooks of their own; `code_size` must be a
        multiple. `code_size` groups make a product quantizer, one group a residual
        quantizer. None chooses.
    epochs : int or None, default None
        Passes over the training vectors, for each network; None makes 80, for codes 60,
        for the reranker 90, and more where these are few steps: at least 600 are made for latents,
        1,200 for codes and reranker, twice as many with sample queries.
    time_budget : float or None, default None
        Seconds for all networks; the learning rate falls to its end within it. With a
        budget two runs differ, since a clock decides. It holds for each training: every
        size that a `code_size` of "auto" tries takes the codes' share of it again.
    learning_rate, weight_decay : float
        Of AdamW, for the residual networks and the codebooks.
    temperature : float or None, default None
        Of the teacher's neighbour distribution, in units of the mean squared norm. None is 0.05
        for codes; for latents and the reranker it is found for every vector, so that about 30
        neighbours count (perplexity, van der Maaten and Hinton, "Visualizing Data using t-SNE",
        2008).
    reconstruction_weight, commitment_weight : float, default 0.5 and 2
        Of the reconstruction error and of the pull between latents and codewords. More of the
        first keeps what groups of thousands share, for clustering, at some loss of recall.
    monitor : {"recall", "loss"}, default "recall"
        Held-out recall@10 or training loss decides which weights are kept; by either,
        those of the start where training ends with a lower recall than it began with.
    patience : int or None, default None
        Evaluations without a better figure that are put up with: training stops at the
        next one. None never stops early.
    validation_fraction : float, default 0.05
        Share of the vectors held out as queries, at most 2,000 of them.
    max_samples : int, default 100000
        Train on a random sample of at most so many vectors.
    seed : int, default 0
    device : str, default "cpu"
    num_threads : int or None, default None
        Threads of this estimator's calls; None leaves the process's setting alone.

    Attributes
    ----------
    latent_tower_, code_tower_ : Tower or None
    reranker_ : Reranker or None
    scale_ : InputScale
    history_ : dict of str to list of dict
        For "latents", "codes" and "reranker" one record an evaluation: step, seconds, loss and
        its parts, held-out recall@10. The first is the start, a reranker's that of the codes.
    sizes_ : list of dict
        For a `code_size` of "auto" what was found of each size: ``code_size``, ``start``
        and ``trained``, held-out recall@10 before and after training, the latter None
        where the size was not trained. Else empty. One that starts below a smaller one is
        never trained.
    code_size_ : int or None
    fell_back_ : dict of str to bool
    n_features_in_ : int
        Dimensions of the embeddings.
    source_ : dict
        What the training vectors were (extractor, counts), where it is known.

    Examples
    --------
    >>> compressor = Compressor(n_components=32, code_size=16).fit(embeddings)  # doctest: +SKIP
    >>> codes = compressor.encode(embeddings)  # doctest: +SKIP
    """

    def __init__(
        self,
        n_components: int | None = 64,
        code_size: int | str | None = 32,
        *,
        metric: str = "cosine",
        nested_sizes: Sequence[int] = (),
        reranker: bool = True,
        hidden_sizes: Sequence[int] | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        noise: float = 0.0,
        mask: float = 0.0,
        mixup: float = 0.2,
        target_recall: float | None = None,
        groups: int | None = None,
        epochs: int | None = None,
        time_budget: float | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        temperature: float | None = None,
        reconstruction_weight: float = 0.5,
        commitment_weight: float = 2.0,
        monitor: str = "recall",
        patience: int | None = None,
        validation_fraction: float = 0.05,
        max_samples: int = 100_000,
        seed: int = 0,
        device: str = "cpu",
        num_threads: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.code_size = code_size
        self.metric = metric
        self.nested_sizes = nested_sizes
        self.reranker = reranker
        self.hidden_sizes = hidden_sizes
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.noise = noise
        self.mask = mask
        self.mixup = mixup
        self.target_recall = target_recall
        self.groups = groups
        self.epochs = epochs
        self.time_budget = time_budget
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.temperature = temperature
        self.reconstruction_weight = reconstruction_weight
        self.commitment_weight = commitment_weight
        self.monitor = monitor
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.max_samples = max_samples
        self.seed = seed
        self.device = device
        self.num_threads = num_threads

    # -- training ---------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: object = None,
        *,
        queries: ArrayLike | None = None,
        progress: Progress | None = None,
        log_dir: str | Path | None = None,
    ) -> Compressor:
        """Train both towers from their linear starts.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings; floats of any width, checked and read as float32.
        y : ignored
        queries : array-like of shape (m, d), optional
            Embeddings of sample queries, where searches will be asked with another kind of
            vectors than is searched (questions against answers): every other training step
            asks with them, and held-out ones of them are the validation. They need no
            relevance judgements.
        progress : callable, optional
            Called with the tower's name, the steps done and the steps planned.
        log_dir : str or Path, optional
            Folder for TensorBoard's event files of this training; see
            :class:`embedpress.autoencoder.tensorboard.TrainingLog`, also for what is raised.

        Returns
        -------
        Compressor
            Itself.

        Raises
        ------
        InputError
            Embeddings with NaN, infinity, zero vectors under cosine, or too few rows.
        UsageError
            An option that cannot be.
        """
        x = self._named(X, fitting=True)
        dim = x.shape[1]
        asked = self._sample_queries(queries, dim)
        check_options(self.get_params(), dim)
        auto = self.code_size == AUTO
        sizes = ladder(self.groups, dim=dim, metric=self.metric) if auto else []
        if len(x) < 2:
            raise InputError("one sample has no neighbours to keep: give at least 2 embeddings")
        asking_from = len(x if asked is None else asked)
        if auto and not self._holdout().count(min(asking_from, self.max_samples)):
            raise InputError(
                f"code_size='auto' is found by held-out queries, and {len(x)} vectors leave fewer "
                f"than {FEWEST_QUERIES} at validation_fraction={self.validation_fraction}: give "
                "more vectors, a larger fraction or a number as code_size"
            )
        with self._training(log_dir) as log:
            norms = np.einsum("ij,ij->i", x, x, dtype=np.float64)
            scale = float(np.sqrt(norms.mean())) if self.metric != "cosine" else 1.0
            self.scale_ = InputScale(self.metric, scale or 1.0)
            asking = None if asked is None else self._sample(asked)
            train, asking, validation = self._holdout().split(self._sample(x), asking)
            self.history_: dict[str, list[Record]] = {}
            self.sizes_: list[dict[str, Any]] = []
            self.source_: dict[str, Any] = {}
            build = self._builder()
            self.latent_tower_ = (
                build.latents(train, self.n_components, self.nested_sizes)
                if self.n_components
                else None
            )
            self.code_tower_: Tower | None = None
            self.reranker_: Reranker | None = None
            if isinstance(self.code_size, numbers.Integral):
                size = int(self.code_size)
                self.code_tower_ = build.codes(train, size, self.groups or size)
            starts = {size: build.codes(train, size, self.groups or size) for size in sizes}
            trainer = self._trainer(train, asking, validation, progress, log)
            self._train(trainer)
            if validation is not None and starts:
                self._choose_size(starts, validation, trainer)
            self._train_reranker(trainer)
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: object = None,
        *,
        queries: ArrayLike | None = None,
        progress: Progress | None = None,
        log_dir: str | Path | None = None,
    ) -> Compressor:
        """Continue training on `X` for `epochs` more, from the present weights.

        Parameters and errors as in :meth:`fit`; the first call is :meth:`fit`. A code size
        that was found stays.
        """
        if not hasattr(self, "scale_"):
            return self.fit(X, queries=queries, progress=progress, log_dir=log_dir)
        x = self._named(X)
        check_options(self.get_params(), x.shape[1])
        asked = self._sample_queries(queries, x.shape[1])
        with self._training(log_dir) as log:
            asking = None if asked is None else self._sample(asked)
            train, asking, validation = self._holdout().split(self._sample(x), asking)
            self.source_ = {}
            trainer = self._trainer(train, asking, validation, progress, log)
            self._train(trainer)
            self._train_reranker(trainer)
        return self

    def _train(self, trainer: Trainer) -> None:
        for name, tower in (("latents", self.latent_tower_), ("codes", self.code_tower_)):
            if tower is not None:
                self.history_.setdefault(name, []).extend(trainer.tower(name, tower))

    def _train_reranker(self, trainer: Trainer) -> None:
        """A new one for the codes as they are now, where recall can tell whether it helps."""
        self.reranker_ = None
        self.history_.pop("reranker", None)
        if self.code_tower_ is None or not trainer.reranks:
            return
        reranker = self._builder().reranker(self.code_tower_)
        records = trainer.reranker(reranker, self.code_tower_)
        if kept_record(records, "recall") is not records[0]:
            self.reranker_, self.history_["reranker"] = reranker, records

    def _choose_size(
        self, starts: dict[int, Tower], validation: Validation, trainer: Trainer
    ) -> None:
        """Train towers of `starts`, and keep the smallest that reaches the target."""
        target = self.target_recall or DEFAULT_TARGET
        device = torch.device(self.device)
        before = {size: validation.recall(starts[size].to(device), device) for size in starts}
        histories: dict[int, list[Record]] = {}

        def train(size: int) -> float:
            histories[size] = trainer.tower(f"codes of {size} bytes", starts[size])
            return float(kept_record(histories[size], self.monitor)["recall"])

        trained = train_sizes(before, train, target)
        chosen = chosen_size(trained, target)
        self.code_tower_ = starts[chosen]
        self.history_["codes"] = histories[chosen]
        self.sizes_ = [
            {"code_size": size, "start": before[size], "trained": trained.get(size)}
            for size in before
        ]
        if trained[chosen] < target:
            warnings.warn(
                f"no code size reaches recall@10 {target:g}: {chosen} bytes, the largest, "
                f"reach {trained[chosen]:.3f}",
                TargetWarning,
                stacklevel=3,
            )

    def _trainer(
        self,
        train: Floats,
        asking: Floats | None,
        validation: Validation | None,
        progress: Progress | None,
        log: TrainingLog | None = None,
    ) -> Trainer:
        device = torch.device(self.device)
        neighborhoods = Neighborhoods(
            train,
            self.metric,
            seeds=SEEDS,
            size=NEIGHBORS,
            anchors=ANCHORS,
            queries=asking,
            device=device,
        )
        return Trainer(
            neighborhoods,
            validation,
            self._trainer_options(),
            device,
            with_latents=self.n_components is not None,
            with_codes=self.code_size is not None,
            with_reranker=self.reranker,
            progress=progress,
            log=log,
        )

    def code_groups(self) -> int:
        """Slices of the code's latent: `groups`, or what suits `code_size` where None."""
        if self.code_size is None:
            raise UsageError("a compressor with code_size=None has no codes and no groups")
        if self.groups is not None:
            return self.groups
        if isinstance(self.code_size, str):
            return self._need_codes()[1].code_size
        return self.code_size

    @property
    def code_size_(self) -> int | None:
        """Bytes of a code, the found ones where `code_size` is "auto"; None without codes."""
        check_is_fitted(self, "scale_")
        return self._need_codes()[1].code_size if self.code_tower_ is not None else None

    @property
    def fell_back_(self) -> dict[str, bool]:
        """For "latents" and "codes": True where training did not beat the start, which was kept.

        The start is PCA for latents; for codes it is OPQ, or with fewer `groups` than bytes
        a product-residual quantizer. Training is judged as `monitor` says.
        """
        check_is_fitted(self, "scale_")
        return {
            name: all(kept_record(run, self.monitor) is run[0] for run in runs(records))
            for name, records in self.history_.items()
        }

    def _sample(self, x: Floats) -> Floats:
        if len(x) > self.max_samples:
            rows = np.random.default_rng(self.seed).permutation(len(x))[: self.max_samples]
            x = x[np.sort(rows)]
        return self.scale_(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]

    def _sample_queries(self, queries: ArrayLike | None, dim: int) -> Floats | None:
        if queries is None:
            return None
        return check_vectors(queries, dim=dim, metric=self.metric, what="sample queries")

    def _builder(self) -> TowerBuilder:
        return TowerBuilder(
            self.metric, self.hidden_sizes, self.dropout, self.batch_norm, self.seed
        )

    def _holdout(self) -> Holdout:
        return Holdout(self.validation_fraction, self.metric, self.noise, self.mask, self.seed)

    def _trainer_options(self) -> TrainerOptions:
        return TrainerOptions(
            metric=self.metric,
            epochs=self.epochs,
            time_budget=self.time_budget,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            temperature=self.temperature,
            reconstruction_weight=self.reconstruction_weight,
            commitment_weight=self.commitment_weight,
            noise=self.noise,
            mask=self.mask,
            mixup=self.mixup,
            monitor=self.monitor,
            patience=self.patience,
            seed=self.seed,
        )

    def score(self, X: ArrayLike, y: object = None) -> float:
        """recall@10 of compressed search among the rows of `X`, each asked for its neighbours.

        Codes are judged where they were trained, else latents; at most 1,000 rows ask.

        Parameters
        ----------
        X : array-like of shape (n, d)
        y : ignored

        Returns
        -------
        float
            In [0, 1]; the row itself is left out of both sides.
        """
        check_is_fitted(self, "scale_")
        x = self._embeddings(X)
        if self.code_tower_ is not None:
            tower, quantizer = self._need_codes()
            stored = self._run(quantizer.lookup, self.encode(x).astype(np.int64))
            queries = self._run(lambda q: tower.query_encoder(self.scale_(q)), x)
        else:
            # set_output() may have made transform give a table.
            stored, queries = np.asarray(self.transform(x)), self.transform_queries(x)
        unit = self._run(self.scale_, x)
        return leave_one_out_recall(unit, stored, queries, metric=self.metric, seed=self.seed)

    @contextlib.contextmanager
    def _training(self, log_dir: str | Path | None) -> Iterator[TrainingLog | None]:
        """Seeded, with this estimator's threads; torch's own generator is put back.

        Gives the log where one is wanted, and ends it with the figures.
        """
        log = None if log_dir is None else TrainingLog(log_dir)
        with (
            self._threads(),
            faiss_threads(self.num_threads),
            torch.random.fork_rng(),
            contextlib.nullcontext() if log is None else log,
        ):
            torch.manual_seed(self.seed)
            yield log
            if log is not None:
                log.figures(self)
