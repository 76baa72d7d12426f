"""Which GPUs train: the trainer is built for CUDA or ROCm, and vLLM serves on more than that. Pure."""

from maft.spec import RunSpec
from maft_operator.spec.schema import BadSpec

# How names begin that device plugins give what has neither; names that nobody knows may be anybody's own for a GPU that has.
_SERVE_ALONE = ("gpu.intel.com/", "habana.ai/", "google.com/tpu", "aws.amazon.com/neuron")


def check(spec: RunSpec, usual: str = "") -> None:
    """Raises BadSpec where a method trains on what serves alone. usual: what GPUs are called where the run does not say."""
    name = spec.gpu_resource or usual
    if name.startswith(_SERVE_ALONE) and spec.training.gpus != 0 and _loads_the_base(spec):
        whose = "" if spec.gpu_resource else ", as the operator has it"
        raise BadSpec(
            f"gpuResource: {name}{whose}; training needs CUDA or ROCm, so set training.gpus to 0, which trains on the CPU"
        )


def _loads_the_base(spec: RunSpec) -> bool:
    """Tells whether anything is trained, or how far agents are apart is measured, which the trainer's image does, too."""
    return spec.iterations > 0 or (spec.evaluation.diversity > 0 and spec.agents > 1)
