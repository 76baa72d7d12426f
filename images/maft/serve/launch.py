"""Becomes vLLM's server: what `vllm serve` calls, without the console script around it.

The script of the CPU build cannot start, for it asks for the metadata of a package of another name; the module that could be
started before is deprecated.
"""

import sys
from collections.abc import Sequence


def vllm(flags: Sequence[str]) -> None:
    """Serves until it is told to end. flags: as behind `vllm serve`, the model first."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    sys.argv = ["vllm", "serve", *flags]  # what it logs, and reads again
    cli_env_setup()
    parser = FlexibleArgumentParser(prog="vllm")
    serve = ServeSubcommand()
    serve.subparser_init(parser.add_subparsers(dest="subparser"))
    arguments = parser.parse_args(sys.argv[1:])
    configure_logging_from_args(arguments)
    serve.validate(arguments)
    serve.cmd(arguments)
