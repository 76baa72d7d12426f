"""`python -m maft.answers.confined`, started by `programs.py`: confines itself, then runs one program on its inputs.

In: one JSON object on standard input. Out: the line `ready` once nothing can be reached any more, or why not; then a JSON object
with the outputs, or with what went wrong. What comes after `ready` is the program's word, and believed as little.
"""

import io
import json
import os
import sys
from typing import Any

from maft.answers.confined import values
from maft.answers.confined.lockdown import Unavailable, confine


class _Nowhere(io.RawIOBase):
    """Takes what the program prints."""

    def writable(self) -> bool:
        """Tells that it may."""
        return True

    def write(self, data: Any) -> int:
        """Passes over the bytes."""
        return len(data)


def main() -> None:
    """Runs the program that standard input brings."""
    sys.set_int_max_str_digits(0)  # an output may have any number of digits: the limit of time holds here
    request = json.loads(sys.stdin.buffer.read())
    channel = os.dup(1)
    os.dup2(2, 1)
    sys.path.remove(os.environ["PYTHONPATH"])
    os.environ.clear()
    sys.stdout = sys.stderr = io.TextIOWrapper(io.BufferedWriter(_Nowhere()), "utf-8", "backslashreplace")
    try:
        confine(request["parent"])
    except (Unavailable, OSError) as error:
        _say(channel, f"refused: {error}\n".encode())
        os._exit(0)
    _say(channel, b"ready\n")
    _say(channel, json.dumps(_answered(request)).encode())
    os._exit(0)  # without what the program has registered for its end


def _answered(request: dict[str, Any]) -> dict[str, Any]:
    """The outputs on all inputs, or the reason why there is none on one of them."""
    stage = "the program"
    try:
        call = _function(request["program"], request["function"])
        outputs = list[str]()
        for number, arguments in enumerate(request["inputs"], 1):
            stage = f"input {number}"
            outputs.append(values.written(call(*arguments)))
        return {"outputs": outputs}
    except BaseException as error:  # whatever it raises, SystemExit and KeyboardInterrupt included
        return {"fault": f"{stage}: {type(error).__name__}{_words(error)}"}


def _words(error: BaseException) -> str:
    try:
        return f": {error!s:.200}".encode(errors="backslashreplace").decode()  # half a character has no bytes
    except BaseException:  # a program's own error may not even be written
        return ""


def _function(program: str, name: str) -> Any:
    if "random" in program:
        import random

        random.seed(0)  # so that equal programs give equal outputs
    namespace: dict[str, Any] = {"__name__": "program"}  # what stands under `if __name__ == "__main__"` is no part of it
    exec(compile(program, "program", "exec"), namespace)
    if name not in namespace:
        raise NameError(f"it defines no {name}")
    return namespace[name]


def _say(channel: int, data: bytes) -> None:
    while data:
        data = data[os.write(channel, data) :]


if __name__ == "__main__":
    main()
