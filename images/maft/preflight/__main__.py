"""`python -m maft.preflight`: tries the model before any server starts, on a small copy with random weights and no GPU.

The copy goes through the run's own functions: what fails there would fail after a whole debate has been paid for.
"""

from maft import lora, models, program
from maft.preflight.shrink import shrunk
from maft.program import Assignment
from maft.summaries import PreflightSummary


def main(assignment: Assignment) -> PreflightSummary:
    """Tries everything; BadInput for the first that does not work."""
    spec = assignment.spec
    config = models.config(spec.model)
    base = lora.new_base(shrunk(config), spec.model)
    adapted = lora.adapt(base, spec.training.lora, None)
    text = config.get_text_config()
    return PreflightSummary(
        architecture=type(base).__name__,
        modules=len(adapted.targeted_module_names),
        context=spec.model.max_length or int(getattr(text, "max_position_embeddings", 0) or 0),
        longest_prompt=0,
        thinks=False,
    )


PARSER = program.parser("preflight", "Tries the model on a small copy, before any server starts.", takes=("spec",))

if __name__ == "__main__":
    program.run(main, PARSER)
