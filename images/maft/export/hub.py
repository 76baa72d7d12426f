"""`--to hub`: the adapters as one model repository of the Hugging Face hub: a folder each, the report beside them, a card above; a
commit for each export that has news.

A repository that is made is private: who wants it public says so there. The token is that of the hub's own library (`HF_TOKEN`,
`hf auth login`), the hub that of `HF_ENDPOINT`.
"""

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maft.errors import BadInput, one_line
from maft.export import folders, reports
from maft.export.cards import CARD, overview
from maft.export.ledger import Ledger, digest
from maft.export.society import Agent
from maft.export.target import Request, Sent
from maft.export.web import may_pass

ADAPTERS = "adapters"  # part of the ledger, the card above them included
_PART = r"[A-Za-z0-9](?:[\w.-]{0,94}\w)?"
_NAME = re.compile(rf"(?!.*(?:--|\.\.)){_PART}/{_PART}(?<!\.git)", re.ASCII)  # as the hub has it


def check(where: str) -> str:
    """Reads the name of a repository; BadInput for what the hub takes for none."""
    if not _NAME.fullmatch(where):
        raise BadInput(f"--to hub={where}: expected OWNER/NAME")
    return where


def send(request: Request) -> Sent:
    """Uploads what is not there as it is now."""
    repository = check(request.to)
    agents, report = request.agents(), request.report_files()
    card = overview(request, agents, report=bool(report)).encode()
    parts = {ADAPTERS: digest(*(agent.commit for agent in agents)) + reports.files_digest({CARD: card}), **reports.part(report)}
    from huggingface_hub import HfApi

    api = HfApi(library_name="maft")
    ledger = Ledger(request.store, request.run.key, "hub", f"{api.endpoint}/{repository}")
    if missing := ledger.missing(parts):
        with TemporaryDirectory() as scratch, explained(repository):
            if ADAPTERS in missing:
                folders.put_adapters(request, agents, Path(scratch))
                folders.write(Path(scratch) / CARD, card)
            if reports.REPORT in missing:
                folders.put_files(report, Path(scratch) / reports.REPORT)
            _upload(api, repository, scratch, f"{request.run.key}, {_news(missing, agents)}")
        ledger.arrived(repository, parts)
    return Sent(f"{api.endpoint}/{repository}", len(missing))


def _news(missing: Sequence[str], agents: Sequence[Agent]) -> str:
    return f"iteration {agents[0].adapter.iteration}" if ADAPTERS in missing else "report"


def _upload(api: Any, repository: str, folder: str, message: str) -> None:
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    api.create_repo(repository, private=True, exist_ok=True)
    api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)


@contextlib.contextmanager
def explained(repository: str) -> Iterator[None]:
    """Turns the hub's refusals into BadInput, and what may pass into OSError, a line each."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError:
        raise BadInput(f"--to hub={repository}: no token; set HF_TOKEN, or run `hf auth login`") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 503
        line = f"--to hub={repository}: status {status}: {one_line(error, 300)}"
        raise (OSError if may_pass(status) else BadInput)(line) from None
    except (BadInput, ValueError) as error:
        raise BadInput(f"--to hub={repository}: {one_line(error, 300)}") from None
    except Exception as error:  # of its HTTP library, which is another one in each release
        raise OSError(f"--to hub={repository}: the hub is away: {one_line(error, 300)}") from None
