"""The files between the steps, as pydantic models.

Every file says what it is (`kind`) and which shape it has (`schema_version`). Reading is strict about both and
tolerant of keys added by newer versions. Writing goes to a temporary name first and is then renamed, so a file
either has its final name and is whole, or is not there.

Words: a *block* `(l, n)` is layers `l … l+n-1`; a triangle is stored as rows `[n-1][l]`, so row `n-1` has `L-n+1`
entries; distances are in units of pi radians (0 = parallel, 0.5 = orthogonal, 1 = opposite).
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shoal.errors import FileFormatError, PlanError

SCHEMA_VERSION = 1

Scope = Literal["all", "audio", "prompt", "text", "last"]
"""Which positions count. `text` is the teacher-forced response; `last` the last position before it."""
SCOPES: tuple[Scope, ...] = ("all", "audio", "prompt", "text", "last")

InputKind = Literal["speech", "text"]
"""What stands in the audio slot: the projected audio, or the transcript's tokens."""

Triangle = list[list[float]]
"""Row `n-1`, column `l`: the value of block `(l, n)`."""


class Record(BaseModel):
    """Base of all parts: unknown keys are ignored, numbers must be finite."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, validate_assignment=True)


class Estimate(Record):
    """A value with its two-sided percentile interval (None where none could be computed)."""

    value: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95


class Provenance(Record):
    """Where and how a file was made."""

    shoal: str
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    command: list[str] = Field(default_factory=list)
    python: str = ""
    platform: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None


class ModelInfo(Record):
    """Which model, and where its parameters are (counts; tied weights counted once)."""

    ref: str
    kind: Literal["speech_llm", "causal_lm", "audio_llm"]
    class_name: str
    family: str
    depth: int
    hidden_size: int
    encoder_parameters: int = 0
    projector_parameters: int = 0
    decoder_layer_parameters: list[int] = Field(default_factory=list)
    decoder_other_parameters: int = 0
    total_parameters: int = 0
    removed_layers: list[int] = Field(default_factory=list)
    """Layers already missing from this checkpoint, in the numbering of the unpruned model."""
    licence: str | None = None
    fingerprint: str = ""
    """SHA-256 over names, shapes and sampled values of the weights: tells models apart."""


class BadRow(Record):
    """A manifest row that was left out, and why."""

    manifest: str
    line: int
    reason: str


class DataInfo(Record):
    """Which clips were used."""

    manifests: list[str]
    clips: int
    seconds: float
    speakers: int | None = None
    languages: list[str] = Field(default_factory=list)
    skipped: list[BadRow] = Field(default_factory=list)
    audio_decoder: str = ""
    """Name and version of the library that decoded the audio."""
    resampler: str = ""
    fingerprint: str = ""
    """SHA-256 over the rows used (paths, durations, texts)."""


class Document(Record):
    """A file: has a kind, a schema version and a provenance."""

    kind: str
    schema_version: int = SCHEMA_VERSION
    provenance: Provenance

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write as JSON under `path`, atomically; returns the path."""
        return write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read from `path`.

        Raises:
            FileFormatError: not there, not JSON, another kind, a newer schema or a missing field.
        """
        return cls.parse(read_json(path), where=str(path))

    @classmethod
    def parse(cls, data: Any, *, where: str) -> Self:
        """Check `data` (parsed JSON) and build the document; see `load`."""
        kind = cls.model_fields["kind"].default
        found = data.get("kind") if isinstance(data, dict) else None
        if found != kind:
            raise FileFormatError(
                f"this is not a Shoal {kind} file (kind: {found!r})", where=where, fix=f"give a {kind} file"
            )
        version = data.get("schema_version")
        if not isinstance(version, int) or version > SCHEMA_VERSION or version < 1:
            raise FileFormatError(
                f"schema version {version!r} is not one this Shoal reads (1 to {SCHEMA_VERSION})",
                where=where,
                fix="upgrade Shoal or make the file again",
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise FileFormatError(_first_problem(error), where=where, fix=f"make the {kind} again") from None


class BestBlock(Record):
    """The block of `n` layers with the smallest distance, and how sure that choice is."""

    n: int
    layer: int
    distance: Estimate
    stability: float | None
    """Share of bootstrap replicates in which this block is the best of its size (None: no interval)."""
    runner_up: int | None = None
    """Start of the block most often chosen instead (None: there is no other)."""


class ScopeAudit(Record):
    """Everything measured over one scope of one input."""

    positions: int
    utterances: int
    angular: Triangle
    angular_low: Triangle | None = None
    """Bounds of the interval; None with fewer than two clusters to resample."""
    angular_high: Triangle | None = None
    influence: list[float]
    influence_low: list[float] | None = None
    influence_high: list[float] | None = None
    best: list[BestBlock]
    """One entry per n = 1 … L (over all l, the block that ends at the last layer included)."""
    best_keeping_last: list[BestBlock] = Field(default_factory=list)
    """One entry per n = 1 … L-1: the same among the blocks that leave the last layer in place."""


class InputAudit(Record):
    """One input (speech or text) in every scope that has positions."""

    input: InputKind
    scopes: dict[Scope, ScopeAudit]
    empty_scopes: dict[Scope, str] = Field(default_factory=dict)
    """Scopes without any position, and why."""


class Audit(Document):
    """How redundant the decoder layers are. Per-utterance sums lie beside it in the `.npz`."""

    kind: Literal["audit"] = "audit"
    model: ModelInfo
    data: DataInfo
    task: str
    inputs: dict[InputKind, InputAudit]
    replicates: int
    level: float = 0.95
    cluster: Literal["utterance", "speaker"] = "utterance"
    seed: int = 0
    sums_file: str | None = None
    seconds: float = 0.0
    """Wall time of the forward passes and the metrics, without loading."""

    @property
    def depth(self) -> int:
        """Number of decoder layers L."""
        return self.model.depth


class PlanSource(Record):
    """The audit a plan was chosen from."""

    path: str
    fingerprint: str
    model_fingerprint: str = ""
    input: InputKind | None = None
    scope: Scope | None = None
    metric: str | None = None


class Plan(Document):
    """What to remove: an explicit list of layers, with who chose it and how."""

    kind: Literal["plan"] = "plan"
    model_ref: str
    depth: int = Field(ge=1)
    layers: list[int]
    """0-based indices of the layers to remove, ascending."""
    keep: list[int] = Field(default_factory=list)
    """0-based indices of the layers that stay, ascending."""
    block: tuple[int, int] | None = None
    """The same as a half-open range `[start, stop)`, if the layers are contiguous."""
    strategy: str = "manual"
    allow_last: bool = False
    seed: int | None = None
    distance: Estimate | None = None
    stability: float | None = None
    source: PlanSource | None = None

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        """Fill `keep` and `block` from `layers`; a hand-written plan needs only `depth` and `layers`."""
        if not isinstance(data, dict) or not isinstance(data.get("layers"), list):
            return data
        data = dict(data)
        layers, depth = data["layers"], data.get("depth")
        if layers and isinstance(depth, int) and all(type(layer) is int for layer in layers):
            data["keep"] = [layer for layer in range(depth) if layer not in set(layers)]
            contiguous = layers == list(range(layers[0], layers[0] + len(layers)))
            data["block"] = (layers[0], layers[-1] + 1) if contiguous else None
        elif not layers and isinstance(depth, int):
            data["keep"], data["block"] = list(range(depth)), None
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        problem = plan_problem(self.layers, self.depth, allow_last=self.allow_last)
        if problem:
            raise ValueError(problem)
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a plan; see `Document.load`.

        Raises:
            PlanError: also for layers out of range, twice or out of order.
        """
        try:
            return super().load(path)
        except FileFormatError as error:
            raise PlanError(error.what, where=error.where, fix=error.fix) from None

    @property
    def name(self) -> str:
        """Short label, such as `contiguous-4` or `full`."""
        return f"{self.strategy}-{len(self.layers)}" if self.layers else "full"


class Counts(Record):
    """Edit operations of a corpus; the rate is (sub + ins + dels) / (hits + sub + dels)."""

    hits: int
    substitutions: int
    insertions: int
    deletions: int


class Delta(Record):
    """Paired difference from the baseline on the same clips. `relative` is None if the baseline is 0."""

    absolute: Estimate
    relative: Estimate | None = None
    p_value: float | None = None
    """Two-sided, from the paired bootstrap."""


class GroupScore(Record):
    """WER of the clips that share one value of a manifest field."""

    clips: int
    wer: Estimate
    delta: Delta | None = None


class SystemScores(Record):
    """One system (the unpruned model or one plan) on the clips."""

    name: str
    model_ref: str | None = None
    """The checkpoint, where it is another one than the document's model."""
    plan: Plan | None = None
    removed: list[int] = Field(default_factory=list)
    wer: Estimate
    cer: Estimate
    word_counts: Counts
    char_counts: Counts
    empty_references: int = 0
    truncated: int = 0
    """Outputs cut at the token limit: usually a loop."""
    delta_wer: Delta | None = None
    groups: dict[str, dict[str, GroupScore]] = Field(default_factory=dict)
    """Field → value → score; `worst_group` names the field's worst."""
    worst_group: dict[str, str] = Field(default_factory=dict)
    outputs_file: str | None = None
    encode_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    generated_tokens: int = 0


class Example(Record):
    """One clip under several systems, for the report."""

    id: str
    reference: str
    outputs: dict[str, str]
    """System name → raw output."""


class Scores(Document):
    """Task scores of a model and of plans over it; the first system is the baseline."""

    kind: Literal["scores"] = "scores"
    model: ModelInfo
    data: DataInfo
    task: str
    normaliser: str
    """Name and version."""
    scorer: str
    """Name and version."""
    decoding: dict[str, Any] = Field(default_factory=dict)
    replicates: int = 1000
    level: float = 0.95
    cluster: Literal["utterance", "speaker"] = "utterance"
    seed: int = 0
    systems: list[SystemScores]
    examples: list[Example] = Field(default_factory=list)


class SystemBench(Record):
    """What one system costs; ratios are pruned / unpruned (below 1 = saved)."""

    name: str
    removed: list[int] = Field(default_factory=list)
    parameters: int
    decoder_parameters: int
    checkpoint_bytes: int
    peak_memory_bytes: int | None = None
    encode_seconds: Estimate
    """Encoder and projector, per clip."""
    prefill_seconds: Estimate
    """Per clip."""
    decode_seconds: Estimate
    """Per generated token and clip, at a fixed number of tokens."""
    total_seconds: Estimate
    """Encode + prefill + decode of the fixed number of tokens, per clip."""
    prefill_ratio: Estimate | None = None
    decode_ratio: Estimate | None = None
    total_ratio: Estimate | None = None
    parameter_ratio: float | None = None
    checkpoint_ratio: float | None = None
    peak_memory_ratio: float | None = None


class Bench(Document):
    """Latency and memory of a model and of plans over it, interleaved on the same clips."""

    kind: Literal["bench"] = "bench"
    model: ModelInfo
    data: DataInfo
    clips: int = 0
    """How many of the data set's clips were timed."""
    repeats: int
    batch_size: int
    new_tokens: int
    level: float = 0.95
    systems: list[SystemBench]


class BlockOverlap(Record):
    """The blocks of n layers that two audits choose. `overlap` is shared layers / n."""

    n: int
    a: int
    b: int
    overlap: Estimate


class ScopeComparison(Record):
    """Two triangles over one scope."""

    spearman: Estimate
    """Rank correlation over all blocks (l, n)."""
    spearman_within_n: Estimate
    """Mean over n of the rank correlation among blocks of the same size (2 ≤ L-n+1)."""
    influence_spearman: Estimate
    """Rank correlation of the layers' block influence."""
    overlaps: list[BlockOverlap]
    mean_overlap: Estimate


class ComparedAudit(Record):
    """Which side of a comparison."""

    path: str
    label: str
    input: InputKind
    task: str
    model_ref: str


class Comparison(Document):
    """How alike two audits are."""

    kind: Literal["comparison"] = "comparison"
    a: ComparedAudit
    b: ComparedAudit
    paired: bool
    """Whether both were measured on the same utterances (then resampled together)."""
    replicates: int
    level: float = 0.95
    scopes: dict[Scope, ScopeComparison]


KINDS: dict[str, type[Document]] = {
    cls.model_fields["kind"].default: cls for cls in (Audit, Plan, Scores, Bench, Comparison)
}


def load_document(path: str | os.PathLike[str]) -> Document:
    """Read any Shoal file by its `kind`.

    Raises:
        FileFormatError: not a Shoal file.
    """
    data = read_json(path)
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind not in KINDS:
        raise FileFormatError(
            f"unknown kind {kind!r}", where=str(path), fix=f"give a Shoal file ({', '.join(sorted(KINDS))})"
        )
    return KINDS[kind].parse(data, where=str(path))


def plan_problem(layers: list[int], depth: int, *, allow_last: bool = False) -> str | None:
    """What is wrong with removing `layers` from a decoder of `depth` layers; None if nothing is."""
    out_of_range = [layer for layer in layers if not 0 <= layer < depth]
    if out_of_range:
        return f"layers {out_of_range} are outside 0 … {depth - 1} (the model has {depth} layers)"
    if len(set(layers)) != len(layers):
        return f"layers {sorted({layer for layer in layers if layers.count(layer) > 1})} are listed twice"
    if layers != sorted(layers):
        return "layers are not in ascending order"
    if len(layers) >= depth:
        return f"removing {len(layers)} of {depth} layers would leave none"
    if depth - 1 in layers and not allow_last:
        return f"layer {depth - 1} is the last layer, which stays unless allow_last is set"
    return None


def read_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file.

    Raises:
        FileFormatError: not there, not readable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError("no such file", where=str(path), fix="check the path") from None
    except OSError as error:
        raise FileFormatError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileFormatError(
            f"not valid JSON ({error.__class__.__name__}: {error})",
            where=str(path),
            fix="make the file again",
        ) from None


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` under `path` through a temporary name in the same folder; returns the path.

    Raises:
        FileFormatError: the folder cannot be made or written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        raise FileFormatError(
            f"cannot be written ({error.strerror})", where=str(target), fix="choose another place with --out"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    return target


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "file"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {first['msg']}{more}"
