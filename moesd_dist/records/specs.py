"""What a point is made of: models, the SD method, prompts and the layout, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum


class ModelSource(StrEnum):
    """Where weights come from; `shape` has none, so they are random."""

    embedded = "embedded"
    checkpoint = "checkpoint"
    shape = "shape"


class DraftMethod(StrEnum):
    """How draft tokens are proposed; `none` is the autoregressive baseline.

    `oracle` replays the reference continuation, each token spoilt with probability 1 - alpha;
    `fixed` proposes random tokens for nothing, so that verification alone costs.
    """

    none = "none"
    draft_model = "draft_model"
    ngram = "ngram"
    suffix = "suffix"
    eagle = "eagle"
    eagle3 = "eagle3"
    mtp = "mtp"
    medusa = "medusa"
    oracle = "oracle"
    fixed = "fixed"

    @property
    def needs_draft(self) -> bool:
        """Whether it proposes with weights of its own, beside the target's."""
        return self.value in ("draft_model", "eagle", "eagle3", "medusa")


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


class Role(StrEnum):
    """`control` is a baseline measured as if it were SD: the A/A run that shows the noise.

    `sentinel` is one measured now and then to see whether the machine is still the same; it is
    never recorded.
    """

    baseline = "baseline"
    sd = "sd"
    control = "control"
    sentinel = "sentinel"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model by its source; `config` and `overrides` are Hugging Face config keys, values as JSON.

    `digest` names the content of weights on disk, so that their folder is no part of the identity
    and a retrained model is another one. A hub name has none: it stands for itself.
    """

    name: str
    source: ModelSource
    location: str = ""  # checkpoint: path or hub name; embedded: "target" or "draft"
    config: tuple[tuple[str, str], ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()
    widen_hidden: int = 1
    widen_expert: int = 1
    widen_heads: int = 1
    dtype: str = "bfloat16"
    seed: int = 0  # of random weights
    trust_remote_code: bool = False
    digest: str = ""

    @property
    def anonymous(self) -> ModelSpec:
        """The same content wherever it lies."""
        return replace(self, location="") if self.digest else self


@dataclass(frozen=True, slots=True, kw_only=True)
class SdSpec:
    """The SD method. Rates in `synthetic_acceptance` are conditional: P(accepted | all before were).

    `alpha` is the oracle's, verified by the target. `schedule` is of (first batch size, last batch
    size, draft tokens); gamma is then the largest. `options` go to the engine as they are.
    """

    method: DraftMethod = DraftMethod.none
    draft: ModelSpec | None = None
    ngram_min: int = 2
    ngram_max: int = 4
    synthetic_acceptance: tuple[float, ...] = ()  # one: the same at all positions; empty: verified
    alpha: float | None = None
    schedule: tuple[tuple[int, int, int], ...] = ()
    options: tuple[tuple[str, str], ...] = ()  # values as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """Which prompts; `digest` names the content of a file, so that its path is no part of the identity."""

    name: str
    prompt_tokens_min: int
    prompt_tokens_max: int
    output_tokens: int
    seed: int = 0
    digest: str = ""
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSpec:
    """World sizes; ep_size is how many ranks share the experts of a layer.

    The rest says how, where an engine has a choice; empty leaves the engine's own.
    """

    tp_size: int = 1
    dp_size: int = 1
    ep_size: int = 1
    nodes: int = 1  # that the data-parallel ranks are spread over, evenly
    all2all_backend: str = ""
    expert_placement: str = ""
    redundant_experts: int = 0
    eplb: bool = False  # experts are moved between ranks while the engine runs
    loads_digest: str = ""  # of the measured loads that a balanced placement was made from
    loads_path: str = field(default="", compare=False)
