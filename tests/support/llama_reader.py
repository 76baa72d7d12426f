"""Asks llama.cpp about a GGUF file: `llama_reader.py FILE` takes questions as JSON and writes what it has for each.

`texts` and, by the file's own template, `chats` become tokens; `prompts` (tokens) are gone on with, greedily, for
`COUNT` tokens or until the model ends. Runs with the packages of requirements/llama.txt alone.
"""

import json
import sys
import urllib.request
from typing import Any

import xllamacpp

COUNT = 16
asked = json.load(sys.stdin)
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.port, params.warmup, params.verbosity = 512, 1, 0, False, 0
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # as transformers; half precision is its own default
server = xllamacpp.Server(params)


def post(path: str, **body: Any) -> Any:
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def said(prompt: list[int]) -> list[int]:
    made: list[int] = post("/completion", prompt=prompt, n_predict=COUNT, temperature=0, return_tokens=True)["tokens"]
    return made


def tokens(text: str, *, whole: bool) -> list[int]:
    """whole: with what is put before every text, which templates of llama.cpp therefore leave out."""
    made: list[int] = post("/tokenize", content=text, add_special=whole, parse_special=True)["tokens"]
    return made


answers = {
    "texts": [tokens(text, whole=False) for text in asked["texts"]],
    "whole": [tokens(text, whole=True) for text in asked["texts"]],
    "chats": [tokens(post("/apply-template", messages=chat)["prompt"], whole=True) for chat in asked["chats"]],
    "said": [said(prompt) for prompt in asked["prompts"]],
}
print(json.dumps(answers))
