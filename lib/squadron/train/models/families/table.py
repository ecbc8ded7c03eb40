"""The families of published models.

From each family's config.json, generation_config.json and tokenizer_config.json on https://huggingface.co.
"""

from __future__ import annotations

import re
from dataclasses import replace

from squadron.train.models.families.family import Family

_LLAMA3 = Family(
    "llama3",
    (r"meta-llama-3-",),
    "llama",
    "llama3",
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
    base_eos="<|end_of_text|>",
    stops=("<|end_of_text|>", "<|eot_id|>"),
    specials=("<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_0|>"),
    template="llama3",
    chat_names="instruct|chat",
    adds_bos=True,
    fields={"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}},
)
_LLAMA31 = replace(
    _LLAMA3,
    name="llama3.1",
    hubs=(r"llama-3\.[13]-",),
    stops=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    specials=("<|start_header_id|>", "<|end_header_id|>", "<|finetune_right_pad_id|>", "<|python_tag|>"),
    template="llama3_1",
    fields={
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        }
    },
    stretched=16,
)
_SLIDING = ("sliding_attention", "full_attention")
_TOOL_WORDS = ("<tool_call>", "</tool_call>")
_QWEN25 = Family(
    "qwen2.5",
    (r"qwen2(\.5)?-(?!.*(vl|audio|omni))", r"babel-"),
    "qwen2",
    "qwen",
    eos="<|im_end|>",
    base_eos="<|endoftext|>",
    pad="<|endoftext|>",
    stops=("<|im_end|>", "<|endoftext|>"),
    specials=("<|im_start|>",),
    words=_TOOL_WORDS,
    template="qwen2_5",
    chat_names="instruct|chat|-rm-|-prm-",
    base_chats=True,
    tokenizer_class="Qwen2Tokenizer",
    fields={"rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0}},
)
_GEMMA2 = Family(
    "gemma2",
    (r"gemma-2-", r"gemma-2b", r"gemma-7b"),
    "gemma2",
    "gemma",
    bos="<bos>",
    eos="<eos>",
    pad="<pad>",
    unk="<unk>",
    mask="<mask>",
    stops=("<eos>", "<end_of_turn>"),
    specials=("<start_of_turn>",),
    template="gemma",
    chat_names="-it$|-it-",
    adds_bos=True,
    tied=True,
    tokenizer_class="GemmaTokenizer",
    fields={"sliding_window": 32},
)
_PHI3 = Family(
    "phi3",
    (r"phi-3-",),
    "phi3",
    "sentencepiece",
    bos="<s>",
    eos="<|endoftext|>",
    pad="<|endoftext|>",
    unk="<unk>",
    stops=("<|endoftext|>", "<|assistant|>", "<|end|>"),
    specials=("</s>", "<|system|>", "<|user|>"),
    template="phi3",
    tokenizer_class="LlamaTokenizer",
)
_COHERE = Family(
    "cohere",
    (r"aya-expanse", r"aya-23", r"c4ai-command-r-v01", r"c4ai-command-r-plus"),
    "cohere",
    "digits",
    bos="<BOS_TOKEN>",
    eos="<|END_OF_TURN_TOKEN|>",
    pad="<PAD>",
    unk="<UNK>",
    cls="<CLS>",
    sep="<SEP>",
    mask="<MASK_TOKEN>",
    stops=("<|END_OF_TURN_TOKEN|>",),
    specials=(
        "<EOS_TOKEN>",
        "<|START_OF_TURN_TOKEN|>",
        "<|USER_TOKEN|>",
        "<|CHATBOT_TOKEN|>",
        "<|SYSTEM_TOKEN|>",
        "<|START_RESPONSE|>",
        "<|END_RESPONSE|>",
    ),
    template="cohere",
    adds_bos=True,
    tied=True,
    tokenizer_class="CohereTokenizer",
)
_EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1}
_DEEPSEEK = Family(
    "deepseekv3",
    (r"deepseek-v3", r"deepseek-r1$", r"deepseek-r1-zero"),
    "deepseek_v3",
    "llama3",
    bos="<｜begin▁of▁sentence｜>",
    eos="<｜end▁of▁sentence｜>",
    pad="<｜▁pad▁｜>",
    stops=("<｜end▁of▁sentence｜>",),
    specials=(
        "<｜User｜>",
        "<｜Assistant｜>",
        *(f"<｜tool▁{name}▁{end}｜>" for name in ("calls", "call", "outputs", "output") for end in ("begin", "end")),
        "<｜tool▁sep｜>",
    ),
    words=("<think>", "</think>"),
    template="deepseekv3",
    adds_bos=True,
    fields={
        **_EXPERTS,
        "q_lora_rank": 32,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "n_group": 2,
        "topk_group": 1,
        "num_mtp_layers": 0,
    },
)
_YARN = {"rope_type": "yarn", "rope_theta": 150_000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0}
_XLM_R = Family(
    "xlm-roberta",
    (r"xlm-roberta-(base|large)", r"infoxlm-", r"multilingual-e5-"),
    "xlm-roberta",
    "unigram",
    bos="<s>",
    eos="</s>",
    pad="<pad>",
    unk="<unk>",
    cls="<s>",
    sep="</s>",
    mask="<mask>",
    tokenizer_class="XLMRobertaTokenizer",
)
_EVERY: tuple[Family, ...] = (
    replace(
        _DEEPSEEK,
        name="deepseek_r1_distill",
        hubs=(r"deepseek-r1-distill-qwen",),
        model_type="qwen2",
        splitting="qwen",
        pad="<｜end▁of▁sentence｜>",
        template="deepseek_r1_distill",
        fields=_QWEN25.fields,
    ),
    replace(
        _DEEPSEEK,
        name="deepseek_r1_distill_llama",
        hubs=(r"deepseek-r1-distill-llama",),
        model_type="llama",
        pad="<｜end▁of▁sentence｜>",
        template="deepseek_r1_distill",
        fields=_LLAMA31.fields,
        stretched=_LLAMA31.stretched,
    ),
    _DEEPSEEK,
    _LLAMA3,
    _LLAMA31,
    replace(_LLAMA31, name="llama3.2", hubs=(r"llama-3\.2-",), template="llama3_2", tied=True),
    replace(
        _QWEN25,
        name="qwen3",
        hubs=(r"qwen3-(?!.*(embedding|reranker|vl|next|omni))",),
        model_type="qwen3",
        words=(*_TOOL_WORDS, "<tool_response>", "</tool_response>", "<think>", "</think>"),
        template="qwen3",
        chat_names="",
    ),
    replace(
        _QWEN25,
        name="qwen3-embedding",
        hubs=(r"qwen3-embedding",),
        model_type="qwen3",
        eos="<|endoftext|>",
        base_eos=None,
        stops=(),
        template=None,
        chat_names="",
        tied=True,
    ),
    _QWEN25,
    _GEMMA2,
    replace(
        _GEMMA2,
        name="gemma3",
        hubs=(r"gemma-3-",),
        model_type="gemma3_text",
        specials=("<start_of_turn>", "<start_of_image>"),
        template="gemma3",
        layer_kinds=_SLIDING,
    ),
    replace(_PHI3, name="phi3.5", hubs=(r"phi-3\.5-",), template="phi3_5"),
    _PHI3,
    _COHERE,
    replace(
        _COHERE,
        name="cohere2",
        hubs=(r"tiny-aya", r"command-r7b", r"command-a-"),
        model_type="cohere2",
        template="cohere2",
        layer_kinds=_SLIDING,
        fields={"sliding_window": 32},
    ),
    Family(
        "gptoss",
        (r"gpt-oss-",),
        "gpt_oss",
        "o200k",
        bos="<|startoftext|>",
        eos="<|return|>",
        pad="<|endoftext|>",
        stops=("<|return|>", "<|endoftext|>", "<|call|>"),
        specials=("<|start|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|end|>"),
        template="gptoss",
        fields={"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 32, "rope_parameters": _YARN},
        stretched=32,
    ),
    Family(
        "glm4moe",
        (r"glm-4\.[5-7]",),
        "glm4_moe",
        "llama3",
        eos="<|endoftext|>",
        pad="<|endoftext|>",
        stops=("<|endoftext|>", "<|user|>", "<|observation|>"),
        specials=("[gMASK]", "<sop>", "<|system|>", "<|assistant|>"),
        words=("<think>", "</think>", *_TOOL_WORDS, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        template="glm4moe",
        fields={**_EXPERTS, "use_qk_norm": True, "num_mtp_layers": 0},
    ),
    Family(
        "lfm2",
        (r"lfm2-",),
        "lfm2",
        "llama3",
        bos="<|startoftext|>",
        eos="<|im_end|>",
        base_eos="<|endoftext|>",
        pad="<|pad|>",
        stops=("<|im_end|>",),
        specials=(
            "<|im_start|>",
            "<|tool_list_start|>",
            "<|tool_list_end|>",
            "<|tool_response_start|>",
            "<|tool_response_end|>",
        ),
        template="lfm2",
        adds_bos=True,
        tied=True,
        fields={"block_auto_adjust_ff_dim": False},
        layer_kinds=("conv", "full_attention"),
    ),
    _XLM_R,
    replace(_XLM_R, name="xlm-roberta-xl", hubs=(r"xlm-roberta-xx?l$",), model_type="xlm-roberta-xl"),
    replace(_XLM_R, name="jina-embeddings-v3", hubs=(r"jina-embeddings-v3",), model_type="jina_embeddings_v3"),
    Family(
        "bert",
        (r"bert-", r"minilm", r"bge-", r"all-minilm", r"contriever", r"e5-(small|base|large)"),
        "bert",
        "wordpiece",
        eos="[SEP]",
        pad="[PAD]",
        unk="[UNK]",
        cls="[CLS]",
        sep="[SEP]",
        mask="[MASK]",
        tokenizer_class="BertTokenizer",
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _EVERY}
"""Every family by its name. A name on the hub belongs to the first whose patterns it meets."""


def find_family(hub_name: str) -> Family | None:
    """The family of a model by its name on the hub, with or without the owner, in any case; None if it is not known."""
    name = hub_name.rpartition("/")[2].lower()
    for family in FAMILIES.values():
        if any(re.match(pattern, name) for pattern in family.hubs):
            return family
    return None
