"""A language model by vLLM: Ray Serve's own deployment of it (`ray.serve.llm`) as a replica of this house's server.

Needs the `gpu` extra. In a cluster without GPUs, vLLM's build for CPUs serves as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest

from squadron.core.errors import ConfigError, InputError, SquadronError
from squadron.serve import openai as api
from squadron.serve import openai_requests as asked
from squadron.serve.service import Context
from squadron.serve.spec import ServeSpec
from squadron.serve.sse import Relay

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "auto": "auto"}
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM makes room for
_KINDS: dict[str, tuple[Any, str, Any]] = {
    "chat": (ChatCompletionRequest, "chat", api.ChatCompletion),
    "stream_chat": (ChatCompletionRequest, "chat", None),
    "complete": (CompletionRequest, "completions", api.Completion),
    "stream_complete": (CompletionRequest, "completions", None),
}
"""By the methods of a language model's routes: vLLM's request, what takes it, and our answer."""


class VllmServer(LLMServer):
    """Answers as `squadron.serve.serving.Replica` does."""

    async def start(self) -> None:
        """Load the model, and find where its answers end."""
        from squadron.train.text.endings import stop_tokens
        from squadron.train.text.tokenizer import load_tokenizer

        await super().start()
        config: Any = await self.llm_config()
        # vLLM knows the ends of the model's generation configuration; an adapter may have learned the template's.
        self._ends = stop_tokens(load_tokenizer(config.model_loading_config.model_source))

    async def answer(self, method: str, request: BaseModel, client: str) -> BaseModel | SquadronError:
        """The answer, or what was wrong with the request."""
        try:
            theirs, call, ours = _kind(method)
            answers = await getattr(self, call)(_converted(theirs, request, stop_token_ids=self._ends))
            async with contextlib.aclosing(answers):
                answer: BaseModel = ours.model_validate(_checked(await anext(answers)).model_dump())
        except SquadronError as error:
            return error
        return answer

    async def stream(self, method: str, request: Any, context: Context) -> AsyncIterator[Any]:
        """The answer in parts, or what was wrong with the request."""
        try:
            theirs, call, _ = _kind(method)
            usage = {"include_usage": True, "continuous_usage_stats": True}
            changed: dict[str, Any] = {"stream_options": usage, "stop_token_ids": self._ends}
            changed["seed"] = context.seed if request.seed is None else request.seed
            asked = request.stream_options
            relay = Relay(request.model, context, tells_usage=asked is not None and asked.include_usage)
            async with contextlib.aclosing(await getattr(self, call)(_converted(theirs, request, **changed))) as parts:
                async for part in parts:
                    if events := [event for item in part for event in relay.read(_checked(item))]:
                        yield events
        except SquadronError as error:
            yield error


def deployment(name: str, base: str, adapters: Mapping[str, str], spec: ServeSpec, on_gpus: bool) -> Any:
    """The model at `base` with LoRA adapters by the names of models ("" is the model itself), as Ray Serve deploys it
    by vLLM under this name."""
    settings, scale = spec.vllm, spec.autoscaling
    if not on_gpus and {bool(folder) for folder in adapters.values()} == {True, False}:
        # In vLLM 0.32's CPU kernels, rows without an adapter get the last one of their batch.
        what = f"vLLM without GPUs mixes up {name} with the adapters over it"
        raise ConfigError(what, where="engine", fix="serve them with engine=own")
    if behind_urls := [path for path in (base, *adapters.values()) if "://" in path]:
        fix = "copy the run's folder to a disk that all nodes see, or serve it with engine=own"
        raise ConfigError("vLLM reads models from disks alone", where=behind_urls[0], fix=fix)
    itself = next((model for model, folder in adapters.items() if not folder), f"{name}-base")
    options: dict[str, Any] = {
        "dtype": _DTYPES[settings.precision],
        "max_model_len": settings.max_length,
        "quantization": settings.quantization,
        "tensor_parallel_size": settings.gpus if on_gpus else 1,
        "gpu_memory_utilization": settings.gpu_memory,
        "enable_prefix_caching": True,
        "structured_outputs_config": {
            "backend": "guidance",
            "disable_any_whitespace": True,
        },  # as llm.decoding.grammar
        "generation_config": "vllm",  # a request's own settings alone, and none of the model's
        "trust_remote_code": False,
        **_lora({model: folder for model, folder in adapters.items() if folder}, settings.adapters_at_once),
    }
    config = LLMConfig(
        model_loading_config={"model_id": itself, "model_source": base},
        engine_kwargs={key: value for key, value in options.items() if value is not None},
        accelerator_config={"kind": "gpu" if on_gpus else "cpu"},
        deployment_config={
            "num_replicas": None if scale else spec.replicas,
            "autoscaling_config": scale and scale.for_ray(),
            "max_ongoing_requests": spec.max_parallel or settings.max_parallel,
            "max_queued_requests": spec.queue,
            "graceful_shutdown_timeout_s": spec.drain_s,
        },
    )
    return build_llm_deployment(config, deployment_cls=VllmServer, override_serve_options={"name": name})


def _lora(folders: Mapping[str, str], max_parallel: int) -> dict[str, Any]:
    """vLLM's settings for these adapters, all of which it holds in memory."""
    from peft import PeftConfig
    from vllm.entrypoints.openai.models.protocol import LoRAModulePath

    if not folders:
        return {}
    rank = max(PeftConfig.from_pretrained(folder).r for folder in folders.values())
    fitting = [one for one in _RANKS if one >= rank]
    if not fitting:
        raise InputError(f"vLLM takes adapters of rank {_RANKS[-1]} at most, one has {rank}", where="engine")
    return {
        "enable_lora": True,
        "max_loras": min(len(folders), max_parallel),
        "max_cpu_loras": len(folders),
        "max_lora_rank": fitting[0],
        "lora_modules": [LoRAModulePath(name=model, path=folder) for model, folder in folders.items()],
    }


def _kind(method: str) -> tuple[Any, str, Any]:
    if method not in _KINDS:
        raise InputError("vLLM, which serves this model, gives no embeddings of it", fix="serve it with engine=own")
    return _KINDS[method]


def _converted(theirs: Any, request: BaseModel, **changed: Any) -> Any:
    if isinstance(request, asked.ChatCompletionRequest) and request.offered:
        fix = "serve it with engine=own"
        raise InputError("tools: vLLM, which serves this model, is offered none here", where="tools", fix=fix)
    left_out = {"tools", "tool_choice", "parallel_tool_calls", "modalities", "verbosity", "function_call", "best_of"}
    try:
        given = request.model_dump(mode="json", exclude_none=True, exclude=left_out, by_alias=True)
        if isinstance(request, asked.ChatCompletionRequest):  # by role, vLLM knows messages without each other's fields
            given["messages"] = [one.model_dump(exclude_unset=True, exclude_none=True) for one in request.messages]
        return theirs(**given | changed)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _checked(answer: Any) -> Any:
    """The answer, if it is none about an error."""
    error = getattr(answer, "error", None)  # vLLM's own class where its layer refuses, Ray's where that does
    if error is not None:
        if error.code >= 500:
            raise RuntimeError(error.message)
        raise InputError(error.message)
    return answer
