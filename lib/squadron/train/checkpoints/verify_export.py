"""Load an export as any user would, with transformers and peft alone, and write its logits: a process of its own.

python -m squadron.train.checkpoints.verify_export FOLDER full|adapter HEAD PRECISION none|nf4 IDS LOGITS
"""

from __future__ import annotations

import sys

from squadron.train.library_setup import quiet_libraries
from squadron.train.models.attention import keep_cap
from squadron.train.models.builders import Head, auto_class, four_bits


def main(folder: str, kind: str, head: Head, precision: str, quantize: str, given: str, wanted: str) -> None:
    quiet_libraries()
    import torch
    from safetensors.torch import load_file, save_file

    settings = {"dtype": torch.bfloat16 if precision == "bf16" else torch.float32, "use_safetensors": True}
    if quantize == "nf4":
        settings |= four_bits(settings["dtype"])  # type: ignore[arg-type]
    load = auto_class(head).from_pretrained
    if kind == "adapter":
        from peft import PeftConfig, PeftModel

        config = PeftConfig.from_pretrained(folder)
        model = PeftModel.from_pretrained(load(config.base_model_name_or_path, **settings), folder)
    else:
        model = load(folder, **settings)
    keep_cap(model)
    with torch.no_grad():
        answer = model.eval()(input_ids=load_file(given)["input_ids"])
    logits = answer.logits if "logits" in answer else answer.last_hidden_state
    save_file({"logits": logits.float().contiguous()}, wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
