"""What the pod or shell lets a program open: how many connections there may be, and how many questions at once.

A question asks all its agents at a time, so a window of many questions is several connections each; containers of today begin at
1,024 open files.
"""

import resource

from maft.errors import BadInput

RESERVED = 100  # files that are no connections of requests: libraries, the store's own, pipes, metrics
OF_WORKER = 2  # files of each process that grades
MOST = 16384  # connections; there are 28,000 ports toward an address, and no servers that need as many


def open_files() -> int:
    """Raises the soft limit of open files as far as the hard one allows and connections need; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + RESERVED
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def connections(files: int, agents: int, shards: int = 1, workers: int = 0) -> int:
    """Computes how many connections that limit of open files allows, beside as many programs that ask the same servers, and as many
    processes that grade; BadInput where one question has too few of them."""
    reserved = RESERVED + OF_WORKER * workers
    part = MOST // shards
    if part < agents:
        most = f"{MOST} connections to the servers are {part} for each, and {agents} agents need {agents}"
        raise BadInput(f"debate.shards: of {shards} programs, {most}; set it to at most {MOST // agents}")
    allowed = min(files - reserved, part)
    if allowed < agents:
        raise BadInput(
            f"open files: the limit is {files}, and {agents} agents need {reserved + agents} of them at least; raise it (ulimit -n)"
        )
    return allowed


def questions(allowed: int, agents: int) -> int:
    """Computes how many questions may be under way at once: of each, all agents are asked at a time."""
    return max(1, allowed // agents)
