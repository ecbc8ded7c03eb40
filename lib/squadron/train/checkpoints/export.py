"""From a checkpoint to files that others load: merged safetensors or an adapter, reloaded and compared.

Weights are read from the checkpoint one at a time and written as they come, so that exporting neither gathers them
from workers nor needs a model in memory; a tensor that is missing or short is an error, never an empty file.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from squadron.core.config import Config
from squadron.core.errors import InputError, WorkerError
from squadron.train.checkpoints.checkpoint import AVERAGE, WEIGHT, Reader
from squadron.train.checkpoints.verify_export import main as reload
from squadron.train.models.builders import Pretrained, local_folder
from squadron.train.worker import PREFIX

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 5 * 10**9
_POLICY = PREFIX + "policy."


class Exported(Config):
    """An export; `largest_difference` of a logit when it was loaded again, None if it was not."""

    path: str
    kind: Literal["full", "adapter"]
    parameters: int
    largest_difference: float | None


def trained_weights(reader: Reader, *, average: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """The trained weights under the names that the built model gives them, float32, one at a time."""
    if average and not reader.has(AVERAGE):
        raise InputError("no moving average was kept", where=str(reader.folder), fix="set ema_decay and train again")
    for name, tensor in reader.tensors(AVERAGE if average else WEIGHT):
        yield name.removeprefix(_POLICY if name.startswith(_POLICY) else PREFIX), tensor


def restored(build: Callable[[], Any], reader: Reader, *, average: bool = False) -> Any:
    """The trained model in this process, ready to be used."""
    import torch

    model = build()
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in trained_weights(reader, average=average):
            own[name].copy_(tensor)
    return model.eval()


def export(
    build: Pretrained,
    reader: Reader,
    folder: Path,
    *,
    average: bool = False,
    merge: bool = True,
    tokenizer: Any = None,
    verify: bool = True,
    clean_process: bool = True,
) -> Exported:
    """Write what was trained as a model that `from_pretrained` loads, with a `tokenizer` or the one at its path, and
    prove it.

    With adapters, `merge` folds them into the base model (dequantised first, if it was in 4 bits); otherwise the
    adapter alone is written. Then a process of its own (this one, if `clean_process` is false) loads the files with
    nothing but transformers and peft, and its logits must be those of the trained model. Raises WorkerError if they are
    not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if build.lora is None:
        kind: Literal["full", "adapter"] = "full"
        count = _write_full(build, trained_weights(reader, average=average), folder)
    elif merge:
        kind, count = "full", _write_merged(build, reader, folder, average)
    else:
        kind, count = "adapter", _write_adapter(build, trained_weights(reader, average=average), folder)
    if tokenizer is not None:
        _write_tokenizer(tokenizer, folder, generates=build.head == "causal" and kind == "full")
    difference = _verify(build, reader, folder, kind, average, merge, clean_process) if verify else None
    return Exported(path=str(folder), kind=kind, parameters=count, largest_difference=difference)


def _write_tokenizer(tokenizer: Any, folder: Path, *, generates: bool) -> None:
    """Write the tokenizer, and into the generation settings of a model that `generates` where its answers end."""
    from transformers import GenerationConfig

    from squadron.train.text.endings import stop_tokens
    from squadron.train.text.tokenizer import load_tokenizer

    words = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
    words.save_pretrained(folder)
    if generates:
        settings = GenerationConfig()
        if (folder / "generation_config.json").exists():
            settings = GenerationConfig.from_pretrained(folder)
        settings.eos_token_id = stop_tokens(words, settings.eos_token_id) or None
        settings.save_pretrained(folder)


def _write_full(build: Pretrained, weights: Iterator[tuple[str, torch.Tensor]], folder: Path) -> int:
    from transformers import GenerationConfig

    config = build.on_meta().config
    config.dtype = "bfloat16" if build.precision == "bf16" else "float32"
    config.save_pretrained(folder)
    with contextlib.suppress(OSError):  # not every model comes with settings of generation
        GenerationConfig.from_pretrained(local_folder(build.path)).save_pretrained(folder)
    return _write_safetensors(weights, folder, "model", _dtype(build))


def _write_adapter(build: Pretrained, weights: Iterator[tuple[str, torch.Tensor]], folder: Path) -> int:
    settings = build.on_meta().peft_config["default"]
    settings.base_model_name_or_path = build.path
    settings.inference_mode = True
    settings.save_pretrained(folder)
    # peft's files leave out the adapter's name, which its modules carry.
    named = ((name.replace(".default", "").replace(".modules_to_save", ""), tensor) for name, tensor in weights)
    return _write_safetensors(named, folder, "adapter_model", _dtype(build))


def _write_merged(build: Pretrained, reader: Reader, folder: Path, average: bool) -> int:
    model = restored(lambda: _dequantised(build), reader, average=average)
    merged = model.merge_and_unload()
    merged.save_pretrained(folder, max_shard_size=SHARD_BYTES)
    return sum(weight.numel() for weight in merged.parameters())


def _dequantised(build: Pretrained) -> Any:
    """The model that was trained, in full precision: 4-bit weights as the values that they stood for."""
    if build.lora is None or build.lora.quantize == "none":
        return build()
    return build.adapted(build.base().dequantize())


def _write_safetensors(weights: Iterator[tuple[str, torch.Tensor]], folder: Path, stem: str, dtype: torch.dtype) -> int:
    """Files of at most `SHARD_BYTES` each, with an index if there are several. Returns the number of parameters."""
    from safetensors.torch import save_file

    parts: list[dict[str, torch.Tensor]] = [{}]
    files: dict[str, str] = {}
    size = count = 0
    with tempfile.TemporaryDirectory(dir=folder) as scratch:

        def flush() -> None:
            nonlocal size
            number = len(os.listdir(scratch))
            save_file(parts[0], os.path.join(scratch, f"{number:05d}"), metadata={"format": "pt"})
            files.update(dict.fromkeys(parts[0], f"{number:05d}"))
            parts[0], size = {}, 0

        for name, tensor in weights:
            if not tensor.numel():
                raise WorkerError(f"{name} is empty", where=str(folder), fix="report this as a fault of Squadron")
            parts[0][name] = tensor.to(dtype).contiguous()
            size += tensor.numel() * parts[0][name].element_size()
            count += tensor.numel()
            if size >= SHARD_BYTES:
                flush()
        if parts[0]:
            flush()
        total = len(os.listdir(scratch))
        names = {f"{n:05d}": f"{stem}-{n + 1:05d}-of-{total:05d}.safetensors" for n in range(total)}
        if total == 1:
            names = {"00000": f"{stem}.safetensors"}
        for scratch_name, name in names.items():
            os.replace(os.path.join(scratch, scratch_name), folder / name)
    if total > 1:
        index = {"metadata": {}, "weight_map": {weight: names[file] for weight, file in files.items()}}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=1))
    return count


def _verify(
    build: Pretrained, reader: Reader, folder: Path, kind: str, average: bool, merge: bool, clean_process: bool
) -> float:
    """The largest difference of any logit between the trained model here and the files read by a clean process."""
    import torch
    from safetensors.torch import load_file, save_file

    dequantise = build.lora is not None and build.lora.quantize != "none" and merge
    model = restored((lambda: _dequantised(build)) if dequantise else build, reader, average=average)
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    ids = torch.randint(0, vocabulary, (2, 24), generator=generator)
    with torch.no_grad():
        answer = model(input_ids=ids)
        expected = answer.logits if "logits" in answer else answer.last_hidden_state
    with tempfile.TemporaryDirectory() as scratch:
        given, got = os.path.join(scratch, "ids.safetensors"), os.path.join(scratch, "logits.safetensors")
        save_file({"input_ids": ids}, given)
        four_bits = build.lora is not None and build.lora.quantize == "nf4" and kind == "adapter"
        words = [str(folder), kind, build.head, build.precision, "nf4" if four_bits else "none", given, got]
        if clean_process:
            _reload_elsewhere(words, folder)
        else:
            reload(*words)  # type: ignore[arg-type]
        actual = load_file(got)["logits"]
    difference = float((actual.float() - expected.float()).abs().max())
    scale = float(expected.float().abs().max())
    if not difference <= (2e-2 if build.precision == "bf16" else 1e-4) * max(1.0, scale):
        what = f"the export answers differently from the trained model: by {difference:.3g} of {scale:.3g}"
        raise WorkerError(what, where=str(folder), fix="report this as a fault of Squadron")
    return difference


def _reload_elsewhere(words: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", "squadron.train.checkpoints.verify_export", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        what = f"the export cannot be loaded again:\n{done.stderr.strip()[-600:]}"
        raise WorkerError(what, where=str(folder), fix="report this as a fault of Squadron")


def _dtype(build: Pretrained) -> torch.dtype:
    import torch

    return torch.bfloat16 if build.precision == "bf16" else torch.float32
