"""vLLM's own serving benchmark, the function behind `vllm bench serve`, on requests that a debate had. For row 1."""

import asyncio
import contextlib
import io
from collections.abc import Sequence
from typing import Any

from servers import Server

from maft.debate.engine import Request
from maft.records import Call


def vllm_rate(server: Server, recorded: Sequence[tuple[Request, Call]], at_once: int | None) -> float:
    """Runs vLLM's `bench serve` on the recorded requests, each with its length; tokens written a second."""
    from vllm.benchmarks.datasets import SampleRequest
    from vllm.benchmarks.serve import TaskType, benchmark

    requests = [
        SampleRequest(
            prompt=list(request.prompt),
            prompt_len=len(request.prompt),
            expected_output_len=call.completion_tokens,
            request_id=str(number),
            request_overrides=_overrides(request),
        )
        for number, (request, call) in enumerate(recorded)
    ]
    server.forget()
    with contextlib.redirect_stdout(io.StringIO()):
        result: dict[str, Any] = asyncio.run(
            benchmark(
                task_type=TaskType.GENERATION,
                endpoint_type="openai",
                api_url=f"{server.url}/v1/completions",
                base_url=server.url,
                model_id="base",
                model_name="base",
                tokenizer=None,
                input_requests=requests,
                logprobs=None,
                request_rate=float("inf"),
                burstiness=1.0,
                disable_tqdm=True,
                num_warmups=0,
                profile=False,
                selected_percentile_metrics=[],
                selected_percentiles=[99.0],
                ignore_eos=True,
                goodput_config_dict={},
                max_concurrency=at_once,
                lora_modules=None,
                extra_headers=None,
                extra_body=None,
                ready_check_timeout_sec=0,
            )
        )
    if result["failed"]:
        raise RuntimeError(f"{result['failed']} requests of vLLM's benchmark failed")
    return float(result["total_output_tokens"]) / float(result["duration"])


def _overrides(request: Request) -> dict[str, Any]:
    """The debate's sampling. vLLM's own benchmark sends neither seed nor ids; with them both sides do the same work."""
    return {
        "model": request.model,
        "seed": request.seed,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "return_token_ids": True,
    }
