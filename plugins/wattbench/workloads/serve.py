"""The workload ``serve``: a server in every image, under a load that is the same for all.

The server runs in the image's container on a network of its own; the load generator
(:mod:`wattbench.workloads.load`) runs beside it on the host, or on another one. docs/servers.md says how to
measure one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from wattbench.workloads.files import Files, SourceFile, read_source, source_file, source_files
from wattbench.workloads.load import plan
from wattbench.workloads.load.answers import STREAMED, parse_path
from wattbench.workloads.program_bundle import load_bundle
from wattbench.workloads.protocol import Expectation, Place, Unit
from wattbench.workloads.settings import (
    Command,
    CpuSet,
    Model,
    PositiveInt,
    Serving,
    Settings,
    cpus_of,
)

#: Names of files that stay on the host: what runs beside the container reads them.
GENERATOR, REQUESTS = "load.pyz", "requests.jsonl"
#: Records of more requests would not fit into an attempt's files.
MOST_REQUESTS = 1_000_000
#: What the probe of an image sends.
PROBE_REQUESTS = 5

#: For keys that a class can't have as attributes.
_BY_ALIAS = ConfigDict(serialize_by_alias=True)

Api = Literal["http", "openai-chat", "openai-completions"]
HttpPath = Annotated[str, StringConstraints(pattern=r"^/[!-~]*$")]
Timeout = Annotated[float, Field(gt=0, le=86400)]


def _answer_path(text: str) -> str:
    parse_path(text)
    return text


class ServerReady(Model):
    """When the server is ready: the phase `start` ends.

    Attributes:
        http: Path that is answered with a status of 2xx once the server is ready.
        timeout_s: Maximum time until it is ready, seconds; the trial fails then.
    """

    http: HttpPath = "/"
    timeout_s: Timeout = 300


class Server(Model):
    """The server in the container.

    Attributes:
        command: Command to start, a list or one line; null: the image's own entry point. An image may have
            its own `command`.
        port: TCP port on which it listens, on all addresses of its container.
        ready: How its readiness is recognised.
    """

    command: Command | None = None
    port: Annotated[int, Field(ge=1, le=65535)]
    ready: ServerReady = ServerReady()


class LoadStep(Model):
    """A part of the load: a concurrency, or a rate of arrivals.

    Attributes:
        concurrency: Requests at any time: each worker sends its next one when it has its answer.
        requests: Number of requests of a step with concurrency.
        rate_per_s: Arrivals per second, independent of earlier answers.
        seconds: Duration of the arrivals, seconds.
        arrivals: `poisson`: at random, from the run's seed, the same for all images; `uniform`: evenly.
    """

    concurrency: Annotated[int, Field(ge=1, le=1000)] | None = None
    requests: PositiveInt | None = None
    rate_per_s: Annotated[float, Field(gt=0, le=100_000)] | None = None
    seconds: Annotated[float, Field(gt=0, le=86400)] | None = None
    arrivals: Literal["poisson", "uniform"] = "poisson"

    @model_validator(mode="after")
    def _one_kind(self) -> LoadStep:
        closed = {self.concurrency is not None, self.requests is not None}
        opened = {self.rate_per_s is not None, self.seconds is not None}
        if len(closed) + len(opened) > 2 or closed == opened:
            raise ValueError(
                "a step has either concurrency and requests, or rate_per_s and seconds"
            )
        if self.concurrency is not None and self.arrivals == "uniform":
            raise ValueError("arrivals has no effect with concurrency; remove it")
        return self

    @property
    def planned(self) -> float:
        """Number of requests; of Poisson arrivals the mean."""
        return self.requests or (self.rate_per_s or 0) * (self.seconds or 0)

    @property
    def name(self) -> str:
        """Of the step's phase: `c8`, `r20`."""
        return f"c{self.concurrency}" if self.concurrency else f"r{self.rate_per_s:g}"


class Expect(Model):
    """What an answer must be.

    Attributes:
        status: Status of every answer; any other is an error.
        json: Path in the answer, such as `$.label` or `$.choices[0].message.content`: its value must be the
            same for all images; null: answers are not compared.
    """

    model_config = _BY_ALIAS

    status: Annotated[int, Field(ge=200, le=599)] = 200
    value: Annotated[str, AfterValidator(_answer_path)] | None = Field(default=None, alias="json")


class Slo(Model):
    """The service level that counts as good.

    Attributes:
        p99_ms: Maximum 99th percentile of the latency, from the intended arrival to the whole answer.
        max_error_pct: Maximum share of failed requests, %.
    """

    p99_ms: Annotated[float, Field(gt=0)]
    max_error_pct: Annotated[float, Field(ge=0, le=100)] = 0.0


class LoadFrom(Model):
    """Where the generator runs: beside the server on the measured host, or on another one.

    Attributes:
        host: Host of hosts.yaml that the generator runs on; it is not measured and needs no meter. null: the
            measured host.
        port: TCP port of the measured host at which `host` reaches the server while a trial lasts; null:
            that of `serve`.
        cpuset: CPUs of its own, for example `3`; it is one thread, so that one is enough. null: any.
    """

    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    cpuset: CpuSet | None = None

    @model_validator(mode="after")
    def _port_of_a_host(self) -> LoadFrom:
        if self.port is not None and self.host is None:
            raise ValueError(
                "port: only a load from another host needs one; name host, or remove port"
            )
        return self


class LoadSettings(Model):
    """The load, the same for all images.

    Attributes:
        api: `http`: any request, its answer is complete when its last byte is there; `openai-chat` and
            `openai-completions`: streamed answers, with the first token's time and tokens in and out.
        requests: File beside the experiment's YAML with one request per line, sent in this order over all
            steps; of `http` with the keys `method`, `path`, `headers`, `json` or `body`, else the API's body.
        request: The only request, instead of a file.
        steps: Steps of the load, one after the other.
        warmup: Requests before the first step; they are not part of any result.
        expect: What an answer must be.
        slo: Service-level objective; null: none.
        timeout_s: Time after which a request without its whole answer has failed, seconds.
        from: where the generator runs.
    """

    model_config = _BY_ALIAS

    api: Api = "http"
    requests: Annotated[SourceFile | None, WithJsonSchema({"type": "string"})] = None
    request: dict[str, Any] | None = None
    steps: Annotated[list[LoadStep], Field(min_length=1)]
    warmup: Annotated[int, Field(ge=0, le=MOST_REQUESTS)] = 20
    expect: Expect = Expect()
    slo: Slo | None = None
    timeout_s: Timeout = 60
    origin: LoadFrom = Field(default=LoadFrom(), alias="from")

    @field_validator("requests", mode="before")
    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        folder = (info.context or {}).get("folder")
        if folder is None:
            raise ValueError(
                "the file of requests stands in the experiment's workload, for all images"
            )
        content = read_source(value, folder)
        try:
            plan.read_requests(content, info.data.get("api", "http"))
        except ValueError as error:
            raise ValueError(f"{value!r} {error}") from None
        return source_file(value, folder)

    @model_validator(mode="after")
    def _whole(self) -> LoadSettings:
        if (self.requests is None) == (self.request is None):
            raise ValueError("name either requests (a file) or request (one for all)")
        if self.request is not None:
            try:
                plan.request_of(self.request, self.api)
            except ValueError as error:
                raise ValueError(f"request: {error}") from None
        planned = self.warmup + sum(step.planned for step in self.steps)
        if planned > MOST_REQUESTS:
            raise ValueError(
                f"the steps hold {planned:,.0f} requests, {MOST_REQUESTS:,} at most; shorten them"
            )
        return self

    def named_steps(self) -> dict[str, LoadStep]:
        """The steps by the names of their phases; a repeated one gets a number."""
        seen: Counter[str] = Counter()
        found = {}
        for step in self.steps:
            seen[step.name] += 1
            found[step.name + (f"-{seen[step.name]}" if seen[step.name] > 1 else "")] = step
        return found


class ServeSettings(Settings):
    """A server under load.

    Attributes:
        serve: The server in the container.
        load: Requests to it, from a generator that runs beside it on the host, or on another host.
        files: Path in the container → file beside the experiment's YAML; mounted read-only.
    """

    endpoint: ClassVar[Literal["window", "steady"]] = "steady"

    kind: Literal["serve"] = "serve"
    serve: Server
    load: LoadSettings
    files: Files = Field(default={})

    @field_validator("files", mode="before")
    @classmethod
    def _read(cls, value: object, info: ValidationInfo) -> object:
        return source_files(value, info)

    def changed(self, changes: dict[str, Any]) -> ServeSettings:
        """The same with some keys changed; of `serve` and `load` the inner keys are."""
        own = self.model_dump()
        joined = {
            key: own[key] | value if isinstance(value, dict) and key in ("serve", "load") else value
            for key, value in changes.items()
        }
        return ServeSettings.model_validate(own | joined)

    def serving(self, *, probe: bool = False) -> Serving:
        """How the server is asked; of the probe, a few requests of which none may fail."""
        load = self.load
        steps = {name: _step(step) for name, step in load.named_steps().items()}
        concurrency = max((s.concurrency or 1 for s in load.steps), default=1)
        if probe:
            steps = {"c1": {"concurrency": 1, "requests": PROBE_REQUESTS}}
        return Serving(
            port=self.serve.port,
            generator=GENERATOR,
            requests=None if load.requests is None else REQUESTS,
            cpus=cpus_of(load.origin.cpuset) if load.origin.cpuset else (),
            least_s=sum(step.seconds or 0 for step in load.steps),
            load_host=load.origin.host,
            outer_port=load.origin.port or self.serve.port,
            plan={
                "ready_path": self.serve.ready.http,
                "ready_timeout_s": self.serve.ready.timeout_s,
                "api": load.api,
                "request": load.request,
                "steps": [{"name": name, **step} for name, step in steps.items()],
                "warmup": 0 if probe else load.warmup,
                "warmup_concurrency": concurrency,
                "status": load.expect.status,
                "json": load.expect.value,
                "timeout_s": load.timeout_s,
                "strict": probe,
            },
        )


def _step(step: LoadStep) -> dict[str, Any]:
    keys = (
        ("concurrency", "requests") if step.concurrency else ("rate_per_s", "seconds", "arrivals")
    )
    return step.model_dump(include=set(keys))


class ServeWorkload:
    """A server."""

    kind = "serve"
    Settings: type[Settings] = ServeSettings

    def argv(self, settings: ServeSettings, place: Place) -> tuple[str, ...]:
        """The image's own command, else the server's, else the image's entry point."""
        return tuple(place.command or settings.serve.command or ())

    def probe_argv(self, settings: ServeSettings, place: Place) -> tuple[str, ...]:
        """The same server; it is asked less."""
        return self.argv(settings, place)

    def files(self, settings: ServeSettings) -> Mapping[str, str]:
        """Those of the container by path; on the host, the generator and its requests."""
        found = {path: file.sha256 for path, file in settings.files.items()}
        found[GENERATOR] = load_bundle().sha256
        if settings.load.requests is not None:
            found[REQUESTS] = settings.load.requests.sha256
        return found

    def content(self, settings: ServeSettings, path: str, folder: Path | None) -> bytes:
        """A file's bytes.

        Raises:
            OSError: it can't be read.
        """
        if path == GENERATOR:
            return load_bundle().content
        file = settings.load.requests if path == REQUESTS else settings.files[path]
        assert file is not None
        return ((folder or Path()) / file.name).read_bytes()

    def expectation(self, settings: ServeSettings) -> Expectation:
        """The steps, the service level, and whether answers are compared."""
        load = settings.load
        steps = [{"name": name, **_step(step)} for name, step in load.named_steps().items()]
        return self._expectation(load, steps)

    def probe_expectation(self, settings: ServeSettings) -> Expectation:
        """The same of the probe's few requests."""
        steps = settings.serving(probe=True).plan["steps"]
        return self._expectation(settings.load, steps)

    def _expectation(self, load: LoadSettings, steps: list[dict[str, Any]]) -> Expectation:
        work = {
            "steps": steps,
            "slo": None if load.slo is None else load.slo.model_dump(),
            "answers_compared": load.expect.value is not None,
        }
        return Expectation(unit=Unit("token" if load.api in STREAMED else "request"), work=work)
