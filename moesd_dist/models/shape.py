"""A model as numbers: its parameters, the bytes they take and what a token adds to the KV cache."""

from __future__ import annotations

from dataclasses import dataclass

from moesd_dist.models import families, parameters
from moesd_dist.models.attention import attention, cached_values
from moesd_dist.models.families import Config, integer

PREDICTED_ONLY = "float8_e4m3fn"  # as DeepSeek-V3 is served: no engine here computes in it
BYTES_PER_VALUE = {"bfloat16": 2, "float16": 2, "float32": 4, PREDICTED_ONLY: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Counts of one model; a dense model has no experts and `top_k` 0.

    Parameters are what transformers 5.23 builds, tied weights once and without the
    multi-token-prediction layers that it does not build.
    """

    model_type: str
    num_layers: int
    num_moe_layers: int
    hidden_size: int
    num_experts: int  # routed, per MoE layer
    top_k: int
    num_shared_experts: int  # in units of a routed expert's width
    vocab_size: int
    max_context: int  # tokens
    total_params: int
    expert_params: int  # of one routed expert
    lookup_params: int  # read row by row, never multiplied: untied input embedding, positions
    kv_values_per_token: int  # over all layers

    @property
    def activation_ratio(self) -> float:
        """top_k / num_experts (rho); 1 for a dense model."""
        return self.top_k / self.num_experts if self.num_experts else 1.0

    @property
    def routed_expert_params(self) -> int:
        """All routed experts of all layers."""
        return self.num_moe_layers * self.num_experts * self.expert_params

    @property
    def non_expert_params(self) -> int:
        """Everything else: attention, norms, routers, shared experts, dense layers, embeddings."""
        return self.total_params - self.routed_expert_params

    @property
    def active_params(self) -> int:
        """What one token passes through, embeddings included, as model cards count it."""
        return self.non_expert_params + self.num_moe_layers * self.top_k * self.expert_params

    @property
    def streamed_non_expert_params(self) -> int:
        """What every forward reads whole, whatever the batch."""
        return self.non_expert_params - self.lookup_params

    @property
    def ops_per_token(self) -> int:
        """Multiplications and additions by weights; attention over the context not included."""
        return 2 * (self.active_params - self.lookup_params)

    def weight_bytes(self, bytes_per_param: float) -> float:
        return self.total_params * bytes_per_param

    def expert_bytes(self, bytes_per_param: float) -> float:
        """One routed expert."""
        return self.expert_params * bytes_per_param

    def routed_expert_bytes(self, bytes_per_param: float) -> float:
        return self.routed_expert_params * bytes_per_param

    def non_expert_bytes(self, bytes_per_param: float) -> float:
        return self.non_expert_params * bytes_per_param

    def kv_bytes_per_token(self, bytes_per_value: float) -> float:
        """What one token adds to the cache of the transformers engine, all layers together.

        For DeepSeek that is the compressed latent and the rotary key shared by all heads
        (kv_lora_rank + qk_rope_head_dim values a layer): transformers 5.23 updates its cache
        before it expands the heads. Sliding windows are not modelled.
        """
        return self.kv_values_per_token * bytes_per_value


def shape_of(config: Config) -> ModelShape:
    """The shape of a Hugging Face config; ValueError for an unknown `model_type` or missing key."""
    families.check_routing(config)
    return ModelShape(
        model_type=families.family(config),
        num_layers=families.num_layers(config),
        num_moe_layers=families.num_moe_layers(config),
        hidden_size=integer(config, "hidden_size"),
        num_experts=families.num_experts(config),
        top_k=families.top_k(config),
        num_shared_experts=families.num_shared_experts(config),
        vocab_size=integer(config, "vocab_size"),
        max_context=integer(config, "max_position_embeddings"),
        total_params=_total_params(config),
        expert_params=parameters.routed_expert(config),
        lookup_params=_lookup_params(config),
        kv_values_per_token=cached_values(config) * families.num_layers(config),
    )


def bytes_per_value(dtype: str) -> int:
    """Bytes of one value of a torch dtype by its name."""
    if dtype not in BYTES_PER_VALUE:
        known = ", ".join(BYTES_PER_VALUE)
        raise ValueError(f"dtype {dtype!r} is not supported; use one of {known}")
    return BYTES_PER_VALUE[dtype]


def _total_params(config: Config) -> int:
    return _outside_layers(config) + _attention_blocks(config) + _feed_forward_blocks(config)


def _outside_layers(config: Config) -> int:
    embedding = parameters.token_embedding(config)
    head = 0 if parameters.ties_embeddings(config) else embedding
    around = parameters.positions(config) + parameters.embedding_projections(config)
    return embedding + head + around + parameters.final_norm(config)


def _attention_blocks(config: Config) -> int:
    per_layer = attention(config) + 2 * parameters.norm(config)
    return families.num_layers(config) * per_layer


def _feed_forward_blocks(config: Config) -> int:
    moe = families.num_moe_layers(config)
    dense = families.num_layers(config) - moe
    experts = families.num_experts(config) * parameters.routed_expert(config)
    total = moe * (experts + parameters.beside_experts(config)) if moe else 0
    return total + dense * parameters.dense_mlp(config) if dense else total


def _lookup_params(config: Config) -> int:
    tied = parameters.ties_embeddings(config)
    return parameters.positions(config) + (0 if tied else parameters.token_embedding(config))
