"""The plan of memory and GPU-hours: published parameter counts, what autograd really keeps, and what must hold of any
plan."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from squadron.core.errors import ConfigError, ResourceError
from squadron.train.models.architectures import ARCHITECTURES, find_architecture
from squadron.train.planning.cost import (
    gpu_hours,
    step_flops,
)
from squadron.train.planning.memory import (
    GB,
    MemoryPlan,
    Shapes,
    activations,
    fits,
    plan_memory,
    read_shapes,
    trainable_parameters,
)
from squadron.train.planning.memory_search import (
    alternatives,
    cheapest,
    refusal,
)
from squadron.train.spec import LoraSettings, ShardingConfig, TrainSpec

QWEN_LAYERS = {"Tower-Babel/Babel-9B": ("Qwen/Qwen2.5-7B", 6), "Tower-Babel/Babel-83B": ("Qwen/Qwen2.5-72B", 12)}
LORA, QLORA = LoraSettings(), LoraSettings(quantize="nf4")


@cache
def published(name: str) -> Shapes:
    config = find_architecture(name)
    assert config is not None
    return read_shapes(config)


def tiny(heads: int = 8, kv_heads: int = 8, layers: int = 2, **fields: Any) -> PretrainedConfig:
    return LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        **fields,
    )


def training(zero: int = 1, precision: str = "bf16", **fields: Any) -> TrainSpec:
    values = {"batch_size": 256, "micro_batch_size": 1, "precision": precision, "sharding": {"zero": zero}} | fields
    return TrainSpec.model_validate(values)


class TestArchitectures:
    @pytest.mark.parametrize(
        ("name", "count"), [("Qwen/Qwen2.5-7B", 7_615_616_512), ("Qwen/Qwen2.5-72B", 72_706_203_648)]
    )
    def test_counts_are_the_published_ones(self, name: str, count: int) -> None:
        assert published(name).parameters == count

    @pytest.mark.parametrize(("name", "rounded"), [("Tower-Babel/Babel-9B", 9e9), ("Tower-Babel/Babel-83B", 83e9)])
    def test_babel_is_qwen_with_more_layers(self, name: str, rounded: float) -> None:
        base, more = QWEN_LAYERS[name]
        count = published(base).parameters + more * published(base).parameters_per_layer
        assert published(name).parameters == count
        assert count == pytest.approx(rounded, rel=0.005)

    def test_names_are_found_without_their_owner(self) -> None:
        config = find_architecture("babel-9b")
        assert config is not None and config.num_hidden_layers == 34
        assert find_architecture("gpt-5") is None

    def test_reading_all_of_them_needs_less_than_two_gigabytes(self) -> None:
        code = (
            "from pathlib import Path\n"
            "from squadron.train.models.architectures import ARCHITECTURES, find_architecture\n"
            "from squadron.train.planning.memory import read_shapes\n"
            "for name in ARCHITECTURES: read_shapes(find_architecture(name))\n"
            # Not ru_maxrss, which a process inherits from the one that started it.
            "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        answer = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        kib = int(answer.stdout.split()[-1])
        assert kib / 2**20 < 2


class TestShapes:
    def test_tied_embeddings_count_once(self) -> None:
        free, tied = read_shapes(tiny()), read_shapes(tiny(tie_word_embeddings=True))
        assert tied.tied and not free.tied
        assert free.parameters - tied.parameters == free.embedding == 128 * 64

    def test_linear_modules_leave_the_head_out(self) -> None:
        shapes = read_shapes(tiny(kv_heads=2))
        assert len(shapes.linears) == 2 * 7
        assert shapes.linear_parameters == 2 * (64 * (64 + 16 + 16 + 64) + 3 * 64 * 160)

    def test_a_model_without_decoder_layers_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="intermediate_size"):
            read_shapes(AutoConfig.for_model("gpt2"))

    @pytest.mark.parametrize(
        "targets", ["all-linear", ("q_proj", "v_proj"), ("self_attn.o_proj",), r".*\.0\..*up_proj"]
    )
    @pytest.mark.parametrize("rank", [4, 16])
    def test_adapters_are_counted_as_peft_counts_them(self, targets: str | tuple[str, ...], rank: int) -> None:
        config = tiny(kv_heads=2)
        wanted = targets if isinstance(targets, str) else list(targets)
        model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=rank, target_modules=wanted))
        counted = trainable_parameters(read_shapes(config), LoraSettings(rank=rank, target_modules=targets))
        assert counted == model.get_nb_trainable_parameters()[0]


class TestActivations:
    @pytest.mark.parametrize(("heads", "kv_heads"), [(8, 8), (8, 2), (4, 1)])
    @pytest.mark.parametrize("layers", [2, 4])
    @pytest.mark.parametrize("tokens", [128, 512])
    def test_full_training(self, heads: int, kv_heads: int, layers: int, tokens: int) -> None:
        config = tiny(heads, kv_heads, layers)
        kept = bytes_kept(AutoModelForCausalLM.from_config(config), tokens)
        planned = activations(read_shapes(config), training(precision="fp32"), None, tokens)
        assert planned == pytest.approx(kept, rel=0.1)

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), ("q_proj", "down_proj")])
    @pytest.mark.parametrize("layers", [2, 4])
    def test_lora(self, precision: str, targets: str | tuple[str, ...], layers: int) -> None:
        config = tiny(kv_heads=2, layers=layers)
        wanted = targets if isinstance(targets, str) else list(targets)
        model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=8, target_modules=wanted))
        kept = bytes_kept(model.to(torch.bfloat16 if precision == "bf16" else torch.float32), 256)
        lora = LoraSettings(rank=8, target_modules=targets)
        assert activations(read_shapes(config), training(precision=precision), lora, 256) == pytest.approx(
            kept, rel=0.1
        )

    def test_bf16(self) -> None:
        config = tiny(kv_heads=2)
        kept = bytes_kept(AutoModelForCausalLM.from_config(config).to(torch.bfloat16), 256)
        assert activations(read_shapes(config), training(), None, 256) == pytest.approx(kept, rel=0.1)

    def test_checkpointing_keeps_one_hidden_state_a_layer_and_one_whole_layer(self) -> None:
        two, four = (read_shapes(tiny(layers=layers)) for layers in (2, 4))
        spec = training(activation_checkpointing=True)
        assert activations(four, spec, None, 10) - activations(two, spec, None, 10) == 10 * 2 * 2 * 64


SHAPES = st.sampled_from(sorted(ARCHITECTURES)).map(published)
METHODS = st.sampled_from([None, LORA, QLORA])
LENGTHS = st.integers(1, 32768)


class TestPlans:
    @given(shapes=SHAPES, lora=METHODS, workers=st.integers(2, 512), tokens=LENGTHS, recompute=st.booleans())
    @settings(max_examples=60, deadline=None)
    def test_more_sharding_never_needs_more(
        self, shapes: Shapes, lora: LoraSettings | None, workers: int, tokens: int, recompute: bool
    ) -> None:
        plans = [
            plan_memory(shapes, training(zero, activation_checkpointing=recompute), workers, lora, tokens)
            for zero in (1, 2, 3)
        ]
        without = [plan.total - plan.buffers for plan in plans]
        assert without == sorted(without, reverse=True)

    @given(shapes=SHAPES, lora=METHODS, zero=st.integers(1, 3), workers=st.integers(1, 512), more=st.integers(1, 512))
    @settings(max_examples=60, deadline=None)
    def test_more_workers_never_need_more(
        self, shapes: Shapes, lora: LoraSettings | None, zero: int, workers: int, more: int
    ) -> None:
        few, many = (plan_memory(shapes, training(zero), count, lora, 4096) for count in (workers, workers + more))
        assert many.total <= few.total and many.host <= few.host

    @given(shapes=SHAPES, zero=st.integers(1, 2), workers=st.integers(1, 512), tokens=LENGTHS)
    @settings(max_examples=60, deadline=None)
    def test_qlora_needs_less_than_lora_and_lora_less_than_all(
        self, shapes: Shapes, zero: int, workers: int, tokens: int
    ) -> None:
        # Under ZeRO 3 on many workers LoRA's sharded weights are smaller than QLoRA's, which every worker holds.
        full, lora, qlora = (
            plan_memory(shapes, training(zero), workers, how, tokens).total for how in (None, LORA, QLORA)
        )
        assert qlora <= lora <= full
        assert plan_memory(shapes, training(3), workers, LORA, tokens).total <= full

    @given(shapes=SHAPES, lora=METHODS, zero=st.integers(1, 3), tokens=LENGTHS, more=st.integers(1, 32768))
    @settings(max_examples=60, deadline=None)
    def test_longer_sequences_need_more_and_checkpointing_less(
        self, shapes: Shapes, lora: LoraSettings | None, zero: int, tokens: int, more: int
    ) -> None:
        short = plan_memory(shapes, training(zero), 8, lora, tokens)
        long = plan_memory(shapes, training(zero), 8, lora, tokens + more)
        again = plan_memory(shapes, training(zero, activation_checkpointing=True), 8, lora, tokens + more)
        assert short.total <= long.total
        assert again.total <= long.total

    def test_bytes_a_parameter(self) -> None:
        shapes = published("Qwen/Qwen2.5-7B")
        plan = plan_memory(shapes, training(1), 1, None, 4096)
        assert (plan.weights, plan.gradients, plan.optimizer) == tuple(n * shapes.parameters for n in (2, 2, 12))
        single = plan_memory(shapes, training(0, "fp32"), 1, None, 4096)
        assert (single.weights, single.gradients, single.optimizer) == tuple(n * shapes.parameters for n in (4, 4, 8))
        averaged = plan_memory(shapes, training(1, ema_decay=0.999), 1, None, 4096)
        assert averaged.optimizer - plan.optimizer == 4 * shapes.parameters

    def test_quantised_weights_are_on_every_worker(self) -> None:
        shapes = published("Qwen/Qwen2.5-7B")
        one, many = (plan_memory(shapes, training(3), count, QLORA, 1024).weights for count in (1, 64))
        four_bits = shapes.linear_parameters * (0.5 + 1 / 64 + 4 / 16384)
        assert many > four_bits
        assert one == pytest.approx(
            four_bits + 2 * (shapes.parameters - shapes.linear_parameters + trainable_parameters(shapes, QLORA)),
            rel=1e-6,
        )

    def test_the_loss_in_chunks_bounds_the_logits(self) -> None:
        shapes = published("Qwen/Qwen2.5-7B")
        whole = plan_memory(shapes, training(), 8, None, 4096)
        chunked = plan_memory(shapes, training(loss_chunk=512), 8, None, 4096)
        assert whole.logits == 4096 * 152064 * 10 == 8 * chunked.logits

    def test_offloading_moves_bytes_off_the_gpu(self) -> None:
        shapes = published("Qwen/Qwen2.5-7B")
        here = plan_memory(shapes, training(3), 8, None, 4096)
        cpu = offloaded(shapes, offload_optimizer="cpu", offload_weights="cpu")
        nvme = offloaded(shapes, offload_optimizer="nvme", offload_weights="nvme", nvme_path="/local")
        assert here.weights and here.optimizer and not cpu.weights and not cpu.optimizer
        # Float32 weights, moments and gradients; bf16 staging; bf16 weights.
        assert cpu.host - here.host == pytest.approx((16 + 2 + 2) * shapes.parameters / 8, rel=1e-6)
        assert nvme.nvme == pytest.approx((16 + 2) * shapes.parameters / 8, rel=1e-6)
        assert here.nvme == cpu.nvme == 0


class TestSuggestions:
    def test_seven_billion_on_eight_large_gpus_fit_without_offloading(self) -> None:
        found = cheapest(published("Qwen/Qwen2.5-7B"), training(batch_size=64), None, 80, 200, 8, 4096)
        assert found is not None
        assert found.spec.sharding.offload_optimizer == "none"
        assert fits(found.plan, 80 * GB, 200 * GB)

    def test_sharding_grows_as_workers_dwindle(self) -> None:
        shapes, spec = published("Qwen/Qwen2.5-7B"), training(batch_size=64, activation_checkpointing=True)
        stages = []
        for workers in (16, 8, 2):
            found = cheapest(shapes, spec, None, 80, 200, workers, 2048)
            assert found is not None
            stages.append(found.spec.sharding.zero)
        assert stages == [1, 1, 3]
        alone = cheapest(shapes, spec, None, 80, 200, 1, 2048)
        assert alone is not None and alone.spec.sharding.offload_optimizer == "cpu"
        assert "sharding.offload_optimizer=cpu" in alone.changes

    def test_settings_that_fit_are_left_alone(self) -> None:
        found = cheapest(read_shapes(tiny()), training(), None, 80, 200, 1, 512)
        assert found is not None and found.changes == ()

    @pytest.mark.parametrize("workers", [3, 8, 48])
    def test_batches_can_be_dealt_out(self, workers: int) -> None:
        spec = training(batch_size=64, micro_batch_size=4)
        found = cheapest(published("Qwen/Qwen2.5-7B"), spec, None, 80, 200, workers, 1024)
        assert found is not None and found.spec.accumulation(workers) >= 1
        assert found.spec.batch_size - spec.batch_size < workers

    def test_nvme_is_tried_only_where_a_folder_is_named(self) -> None:
        shapes = published("Qwen/Qwen2.5-7B")
        assert cheapest(shapes, training(), None, 24, 60, 1, 1024) is None
        named = training(sharding={"zero": 1, "nvme_path": "/local"})
        found = cheapest(shapes, named, None, 24, 60, 1, 1024)
        assert found is not None and found.spec.sharding.offload_optimizer == "nvme"

    def test_eighty_three_billion_on_one_small_gpu_are_refused_with_what_would_work(self) -> None:
        shapes = published("Tower-Babel/Babel-83B")
        assert cheapest(shapes, training(), None, 24, 128, 1, 2048) is None
        error = refusal("Babel-83B", shapes, training(), None, 24, 128, 1, 2048)
        assert isinstance(error, ResourceError)
        assert "in full" in error.what and "1 GPU of 24 GB" in error.where
        more = alternatives(shapes, training(), None, 24, 128, 1, 2048).more_gpus
        assert more is not None and f"train in full on {more.workers} GPUs of 24 GB" in error.fix
        assert cheapest(shapes, training(), None, 24, 128, more.workers - 1, 2048) is None

    def test_lora_and_qlora_are_named_where_they_fit(self) -> None:
        shapes = published("Tower-Babel/Babel-9B")
        other = alternatives(shapes, training(), None, 24, 32, 1, 1024)
        assert other.lora is not None and other.qlora is not None
        error = refusal("Babel-9B", shapes, training(), None, 24, 32, 1, 1024)
        assert "LoRA of rank 16" in error.fix and "QLoRA of rank 16" in error.fix
        assert alternatives(shapes, training(), LORA, 24, 32, 1, 1024).lora is None

    def test_where_nothing_fits_the_refusal_still_says_what_to_change(self) -> None:
        error = refusal("Babel-83B", published("Tower-Babel/Babel-83B"), training(), None, 2, 4, 1, 2048)
        assert "smaller model" in error.fix


class TestCost:
    def test_operations_of_a_token(self) -> None:
        shapes = published("Qwen/Qwen2.5-7B")
        weights, attention = 7_615_616_512 - 152064 * 3584, 2 * 28 * 3584 * 4096
        flops = step_flops(shapes, 1, 4096, None, activation_checkpointing=False)
        assert flops.model == flops.hardware == 6 * weights + 3 * attention
        again = step_flops(shapes, 1, 4096, None, activation_checkpointing=True)
        assert again.model == flops.model
        assert again.hardware - again.model == 2 * (weights - 152064 * 3584) + attention
        lora = step_flops(shapes, 1, 4096, LORA, activation_checkpointing=False)
        assert lora.model == 4 * weights + 6 * trainable_parameters(shapes, LORA) + 3 * attention

    def test_hours_of_a_known_run(self) -> None:
        # 10⁹ tokens, 4.489 · 10¹⁰ operations each, at 0.4 · 989 · 10¹² a second.
        hours = gpu_hours(published("Qwen/Qwen2.5-7B"), 10**9, "H100", mfu=0.4, sequence_length=4096)
        assert hours == pytest.approx(44_889_965_568e9 / (0.4 * 989e12) / 3600)
        assert hours == pytest.approx(31.52, abs=0.01)

    def test_an_unknown_card_is_refused_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="did you mean H100"):
            gpu_hours(published("Qwen/Qwen2.5-7B"), 1, "H1000")


def bytes_kept(model: torch.nn.Module, tokens: int) -> int:
    """Bytes of the distinct storages, parameters left out, that a forward pass keeps for the backward pass."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    ids = torch.randint(0, 128, (1, tokens))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.train()(input_ids=ids, use_cache=False)
    assert output.logits.requires_grad
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in parameters)


def offloaded(shapes: Shapes, **sharding: Any) -> MemoryPlan:
    spec = training().model_copy(update={"sharding": ShardingConfig(zero=3, **sharding)})
    return plan_memory(shapes, spec, 8, None, 4096)
