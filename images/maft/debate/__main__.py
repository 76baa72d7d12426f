"""`python -m maft.debate`: the command line of the debate."""

from maft import program
from maft.debate.session import main, parser

if __name__ == "__main__":
    program.without_torch()
    program.run(main, parser())
