"""Families of models: published templates by the names of trl's files, and three of ours; what is known of each."""

from typing import Any

from family_rules import Family, Mode, always, never, thinks

CHATML = "<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"
QWEN: dict[str, Any] = {
    "real": "qwen3",
    "eos": "<|im_end|>",
    "end": ("<|im_end|>",),
    "special": ("<|im_start|>",),
    "plain": ("<think>", "</think>"),
}
LLAMA: dict[str, Any] = {
    "real": "llama3_1",
    "bos": "<|begin_of_text|>",
    "eos": "<|eot_id|>",
    "end": ("<|eot_id|>",),
    "special": ("<|start_header_id|>", "<|end_header_id|>"),
}
GEMMA: dict[str, Any] = {
    "real": "gemma3",
    "bos": "<bos>",
    "eos": "<end_of_turn>",
    "end": ("<end_of_turn>",),
    "special": ("<start_of_turn>",),
}
LLAMA_ROLE = "<|start_header_id|>assistant<|end_header_id|>\n\n"
GEMMA_ROLE = "<start_of_turn>model\n"
QWEN3_MODES = thinks(CHATML, CHATML + EMPTY, earlier_off=False)
OPENED = thinks(CHATML + "<think>\n", CHATML + EMPTY, earlier=False)
DEEPSEEK = "<｜Assistant｜><think>\n"
COHERE_ROLE = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
COHERE_TOKENS = ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")
GLM_ROLE = "<|assistant|>"
MISTRAL: dict[str, Any] = {
    "bos": "<s>",
    "eos": "</s>",
    "end": ("</s>",),
    "system": "folded",
    "reply": " {}",
    "modes": never(" [/INST]"),
}

FAMILIES: dict[str, Family] = {
    "llama3": Family("Llama 3", "llama3", modes=never(LLAMA_ROLE), own=False, **LLAMA),
    "llama3_1": Family(
        "Llama 3.1",
        "llama3_1",
        modes=never(LLAMA_ROLE),
        arguments=("builtin_tools", "custom_tools", "date_string", "tools_in_user_message"),
        **LLAMA,
    ),
    "llama3_2": Family(
        "Llama 3.2",
        "llama3_2",
        modes=never(LLAMA_ROLE),
        own=False,
        arguments=("custom_tools", "date_string", "tools_in_user_message"),
        dated="03 Feb 2031",
        **LLAMA,
    ),
    "qwen2_5": Family("Qwen2.5", "qwen2_5", modes=never(CHATML), own=False, **QWEN),
    "qwen3": Family("Qwen3", "qwen3", modes=QWEN3_MODES, switch="enable_thinking", **QWEN),
    "qwen3_moe": Family("Qwen3-MoE", "qwen3", modes=QWEN3_MODES, switch="enable_thinking", **QWEN),
    "qwen3_instruct_2507": Family("Qwen3-2507 Instruct", "qwen3_instruct_2507", modes=never(CHATML), **QWEN),
    "qwen3_5_think": Family(
        "Qwen3.5, 4B and larger",
        "qwen3_5_think",
        modes=OPENED,
        own=False,
        switch="enable_thinking",
        arguments=("add_vision_id",),
        **QWEN,
    ),
    "qwen3_5_nothink": Family(
        "Qwen3.5, 2B and smaller",
        "qwen3_5_nothink",
        modes={**OPENED, "Auto": Mode(thinks=True, prompt=CHATML + EMPTY, earlier=False)},
        own=False,
        switch="enable_thinking",
        arguments=("add_vision_id",),
        **QWEN,
    ),
    "gemma2": Family("Gemma 2", "gemma", modes=never(GEMMA_ROLE), own=False, system="folded", **GEMMA),
    "gemma3_text": Family("Gemma 3, text", "gemma3", modes=never(GEMMA_ROLE), system="template", **GEMMA),
    "gemma3": Family("Gemma 3, with vision", "gemma3", modes=never(GEMMA_ROLE), system="template", **GEMMA),
    "gemma4": Family(
        "Gemma 4",
        "gemma4_v5",
        end=("<turn|>",),
        modes=thinks("<|turn>model\n"),
        bos="<bos>",
        eos="<turn|>",
        special=("<|turn>", "<|think|>", "<|channel>", "<channel|>"),
        switch="enable_thinking",
        arguments=("preserve_thinking",),
        thought="<|channel>thought\n{}<channel|>",
    ),
    "phi3": Family(
        "Phi-3",
        "phi3",
        end=("<|end|>",),
        modes=never("<|assistant|>"),
        eos="<|endoftext|>",
        special=("<|user|>", "<|assistant|>", "<|system|>"),
        strips_right=True,
    ),
    "phi3_5": Family(
        "Phi-3.5",
        "phi3_5",
        end=("<|end|>",),
        modes=never("<|assistant|>"),
        eos="<|endoftext|>",
        special=("<|user|>", "<|assistant|>", "<|system|>"),
        strips_right=True,
    ),
    "gpt_oss": Family(
        "gpt-oss",
        "gptoss",
        end=("<|return|>",),
        modes=always("<|start|>assistant", "reasoning_effort", earlier=False),
        real="gptoss",
        eos="<|return|>",
        special=("<|start|>", "<|message|>", "<|channel|>", "<|end|>"),
        arguments=("builtin_tools", "model_identity", "reasoning_effort"),
        dated="2031-02-03",
        reply="<|channel|>final<|message|>{}",
        thought="<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "glm4_moe": Family(
        "GLM-4-MoE",
        "glm4moe",
        end=("<|user|>",),
        modes=thinks(GLM_ROLE, GLM_ROLE + "\n<think></think>", earlier=False, earlier_off=True),
        eos="<|endoftext|>",
        special=("[gMASK]", "<sop>", "<|user|>", GLM_ROLE, "<|system|>"),
        plain=("<think>", "</think>"),
        switch="enable_thinking",
        thought="\n<think>{}</think>\n",
        reply="\n{}",
    ),
    "lfm2": Family(
        "LFM2",
        "lfm2",
        end=("<|im_end|>",),
        modes=never(CHATML),
        bos="<|startoftext|>",
        eos="<|im_end|>",
        special=("<|im_start|>",),
    ),
    "lfm2_5": Family(
        "LFM2.5",
        "lfm2_2_5_v2",
        end=("<|im_end|>",),
        modes=thinks(CHATML),
        bos="<|startoftext|>",
        eos="<|im_end|>",
        special=("<|im_start|>",),
        plain=("<think>", "</think>"),
        arguments=("preserve_thinking",),
    ),
    "cohere": Family(
        "Command R, Aya Expanse",
        "cohere",
        end=("<|END_OF_TURN_TOKEN|>",),
        modes=never(COHERE_ROLE),
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        special=COHERE_TOKENS,
    ),
    "cohere2": Family(
        "Command R7B, Tiny Aya",
        "cohere2",
        end=("<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>"),
        modes=never(COHERE_ROLE + "<|START_RESPONSE|>"),
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        special=COHERE_TOKENS,
        plain=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
    "deepseek_r1_distill": Family(
        "DeepSeek-R1 distilled",
        "deepseek_r1_distill",
        end=("<｜end▁of▁sentence｜>",),
        modes=thinks(DEEPSEEK, DEEPSEEK + "\n</think>\n\n", earlier=False),
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        special=("<｜User｜>", "<｜Assistant｜>"),
        plain=("<think>", "</think>"),
    ),
    "nemotron_3": Family(
        "Nemotron 3 Nano",
        "nemotron_3_nano",
        end=("<|im_end|>",),
        modes=thinks(CHATML + "<think>\n", CHATML + "<think></think>", earlier=False, earlier_off=True),
        eos="<|im_end|>",
        special=("<|im_start|>",),
        plain=("<think>", "</think>"),
        switch="enable_thinking",
        arguments=("truncate_history_thinking",),
    ),
    "muse_glimmer": Family(
        "Muse Glimmer",
        "muse_glimmer",
        end=("<|eot|>",),
        modes=always("<|start|>assistant", "reasoning_strength", earlier=True),
        bos="<|begin_of_text|>",
        eos="<|eot|>",
        special=("<|start|>", "<|message|>", "<|eom|>"),
        arguments=("current_date", "knowledge_cutoff", "reasoning_strength", "tool_namespace_descriptions"),
        dated="2031-02-03",
        reply=" to=user<|message|>{}",
        thought=" to=self<|message|>{}<|eom|><|start|>assistant to=user<|message|>",
    ),
    "smolvlm": Family(
        "SmolVLM",
        "smolvlm",
        end=("<end_of_utterance>",),
        modes=never("Assistant:"),
        bos="<|im_start|>",
        eos="<end_of_utterance>",
        reply=" {}",
    ),
    "mistral": Family("Mistral", "mistral", special=("[INST]", "[/INST]"), **MISTRAL),
    "mixtral": Family("Mixtral", "mistral", **MISTRAL),
    "granite": Family(
        "Granite",
        "granite",
        end=("<|end_of_text|>",),
        modes=thinks("<|start_of_role|>assistant<|end_of_role|>"),
        eos="<|end_of_text|>",
        special=("<|start_of_role|>", "<|end_of_role|>"),
        switch="thinking",
        dated="February 03, 2031",
    ),
}

# Families of the same classes as another, which is trained and served for them.
LIKE = {
    "llama3": "llama3_1",
    "llama3_2": "llama3_1",
    "qwen3_instruct_2507": "qwen3",
    "qwen3_5_nothink": "qwen3_5_think",
    "phi3_5": "phi3",
    "lfm2_5": "lfm2",
}
