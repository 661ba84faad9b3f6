"""What devices may send. It comes from the network, so everything has a type, a range and a length."""

from __future__ import annotations

import statistics
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from vitrail.bench.protocol import percentile

MAX_SAMPLES = 5000


def _printable(text: str) -> str:
    """Names are shown on terminals and pages: no control characters, no line breaks."""
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


Identifier = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""128 random bits, made by the device."""

ModelId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Text = Annotated[str, StringConstraints(max_length=120, strip_whitespace=True), AfterValidator(_printable)]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=60)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(_printable)]
Milliseconds = Annotated[float, Field(gt=0, le=3_600_000)]


class Message(BaseModel):
    """What all messages have in common: no other fields, no conversions, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DeviceDescription(Message):
    """What a device says of itself, as far as its browser lets it.

    Attributes:
        id: kept by the browser, so that a device that comes back is known.
        name: what people call it.
        browser, platform, gpu: e.g. "Chrome 156", "Android 16", "arm valhall"; empty where unknown.
        cores: logical ones that the browser admits to.
        memory_gb: rounded by the browser; 0 where unknown.
        secure_context: https, or this machine itself; without it there are no threads and no WebGPU.
        cross_origin_isolated: threads share memory.
        simd, webgpu: what there is.
        clock_ms: the smallest step of its clock.
    """

    id: Identifier
    name: Name
    browser: Text
    platform: Text
    gpu: Text
    cores: Annotated[int, Field(ge=1, le=4096)]
    memory_gb: Annotated[float, Field(ge=0, le=65536)]
    secure_context: bool
    cross_origin_isolated: bool
    simd: bool
    webgpu: bool
    clock_ms: Annotated[float, Field(ge=0, le=1000)]


class Join(Message):
    """A device uses up an invitation.

    Attributes:
        invitation: from the QR code.
        device: who it is.
    """

    invitation: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    device: DeviceDescription


class Measurement(Message):
    """One model in one mode on one device.

    Attributes:
        id: a repeated post has the same one, and is stored once.
        model: which file.
        backend: "wasm" (processor) or "webgpu".
        threads: of WebAssembly; 1 for WebGPU.
        samples_ms: every timed sample, in order: mean latency of ``runs_per_sample`` runs, which are more than one
            where the clock is too coarse for a single run.
        warmup_runs: untimed runs before.
        load_ms: from the bytes of the file to the first answer.
        hidden: the page was in the background meanwhile, where browsers take time from it.
        max_relative_error: of the answer, against ONNX Runtime on the serving machine.
        failure: why there is nothing of this, e.g. memory; None if there is.
    """

    id: Identifier
    model: ModelId
    backend: Literal["wasm", "webgpu"]
    threads: Annotated[int, Field(ge=1, le=64)]
    samples_ms: Annotated[list[Milliseconds], Field(max_length=MAX_SAMPLES)] = []
    runs_per_sample: Annotated[int, Field(ge=1, le=100_000)] = 1
    warmup_runs: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    load_ms: Milliseconds | None = None
    hidden: bool = False
    max_relative_error: Annotated[float, Field(ge=0, le=1e30)] | None = None
    failure: Reason | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.failure is None and (not self.samples_ms or self.load_ms is None or self.max_relative_error is None):
            raise ValueError("has neither samples_ms, load_ms and max_relative_error, nor a failure")
        return self

    @property
    def num_runs(self) -> int:
        return len(self.samples_ms) * self.runs_per_sample

    def latency_ms(self, share: float) -> float | None:
        """The percentile at ``share``, None without samples; the median as the rest of the bench takes it."""
        if not self.samples_ms:
            return None
        return statistics.median(self.samples_ms) if share == 0.5 else percentile(self.samples_ms, share)
