"""What the society measures of itself, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from maft.endpoint.answer import Answer

_SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)
_TOKENS = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class Measured:
    """Requests, seconds, tokens, margins."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        self.requests = Counter(
            "maft_society_requests", "Requests by model and status of HTTP", ["model", "status"], registry=registry
        )
        self._seconds = Histogram(
            "maft_society_request_seconds", "What answered requests took", ["model"], buckets=_SECONDS, registry=registry
        )
        self._tokens = Histogram(
            "maft_society_answer_tokens",
            "Tokens written for one answer, by all agents in all rounds",
            ["model"],
            buckets=_TOKENS,
            registry=registry,
        )
        self._margin = Histogram(
            "maft_society_margin_ratio",
            "How many more agents are behind the answer than behind the next one, as a share of all agents",
            ["model"],
            buckets=_SHARES,
            registry=registry,
        )
        self._abstained = Counter("maft_society_abstentions", "Debates without a majority", ["model"], registry=registry)
        self.active = Gauge("maft_society_requests_active", "Requests under way", registry=registry)
        self.ready = Gauge("maft_society_ready", "Whether every adapter answers", registry=registry)
        self.kept = Counter("maft_society_questions_kept", "Questions written to the store", registry=registry)
        self.lost = Counter(
            "maft_society_questions_lost", "Questions that were to be kept and were not: the store was away", registry=registry
        )

    def answered(self, model: str, answer: Answer, seconds: float) -> None:
        """Counts an answer that somebody got."""
        self._seconds.labels(model).observe(seconds)
        self._tokens.labels(model).observe(answer.completion_tokens)
        if answer.debate is not None:
            self._margin.labels(model).observe(answer.debate["margin"] / len(answer.debate["agents"]))
            self._abstained.labels(model).inc(answer.debate["abstained"])

    def text(self) -> bytes:
        """Writes all of it as Prometheus reads it."""
        return generate_latest(self.registry)
