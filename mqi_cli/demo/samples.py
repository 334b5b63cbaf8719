"""Sample cases in the layout that a proton treatment machine writes: a plan, a directory a field, spot logs a layer.

    <study-uid>/RP.<uid>.dcm                              a DICOM RT Ion Plan, as small as the standard allows
    <study-uid>/<YYYYMMDDhhmmssff>/NN_<id>_001_<field>_<layer>.ptn    16-byte records, one each 0.06 ms
    <study-uid>/<YYYYMMDDhhmmssff>/NN_<id>_001_<field>_<layer>.mgn    the planned spots of the layer
    <study-uid>/<YYYYMMDDhhmmssff>/PlanInfo.txt, PlanRange.txt

A record is eight big-endian unsigned 16-bit numbers: x, y, x size, y size, dose 1, dose 2, layer, flags. The content is
made up and the same for the same random numbers; no patient ever was called DEMO.
"""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

RT_ION_PLAN = "1.2.840.10008.5.1.4.1.1.481.8"  # SOP class, DICOM PS3.6 A
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
RECORD = struct.Struct(">8H")


def write_case(
    directory: Path, random: Random, *, patient: str, fields: int = 3, layers: int = 12, records: int = 400
) -> int:
    """Write one case below `directory`, which is made; return the number of files. `records` is a layer's mean."""
    directory.mkdir(parents=True)
    study = directory.name
    plan = f"{study}.{random.randrange(10**6)}"
    (directory / f"RP.{plan}.dcm").write_bytes(plan_bytes(plan, study=study, patient=patient))
    files = 1
    for field in range(1, fields + 1):
        files += _write_field(directory, random, field, study=study, patient=patient, layers=layers, records=records)
    return files


def _write_field(
    directory: Path, random: Random, field: int, *, study: str, patient: str, layers: int, records: int
) -> int:
    folder = (
        directory
        / f"202611{random.randrange(1, 29):02d}{8 + field:02d}{random.randrange(60):02d}{random.randrange(60):02d}{field:02d}"
    )
    folder.mkdir()
    identity = random.randrange(10**7)
    ranges = ["RESULT_ID,LAYER_NO,LAYER_ENERGY,DOSE1_RANGE,DOSE2_RANGE"]
    for layer in range(1, layers + 1):
        stem = f"{field:02d}_{identity}_001_{field:03d}_{layer:03d}"
        (folder / f"{stem}.ptn").write_bytes(_spots(random, layer, random.randrange(records // 2, records * 3 // 2)))
        planned = "".join(
            f"{random.uniform(-90, 90):.2f},{random.uniform(-90, 90):.2f},{random.uniform(0.1, 4):.3f}\n"
            for _ in range(40)
        )
        (folder / f"{stem}.mgn").write_text(planned)
        ranges.append(f"{identity},{layer},{220 - 4.5 * layer:.1f},2,2")
    (folder / "PlanRange.txt").write_text("\n".join(ranges) + "\n")
    (folder / "PlanInfo.txt").write_text(
        f"DICOM_PATIENT_ID,{patient}\nDICOM_STUDY_INS_UID,{study}\nDICOM_BEAM_NUMBER,{field}\n"
        f"TCSC_FIELD_NUMBER,{field}\nSTART_LAYER_NUMBER,1\nSTOP_LAYER_NUMBER,{layers}\n"
    )
    return 2 * layers + 2


def _spots(random: Random, layer: int, count: int) -> bytes:
    """Return the log of a layer: a beam that wanders from spot to spot while the two monitors count."""
    x, y = random.randrange(20000, 45000), random.randrange(20000, 45000)
    log = bytearray()
    for number in range(count):
        if number % 8 == 0:
            x = min(65535, max(0, x + random.randrange(-2500, 2500)))
            y = min(65535, max(0, y + random.randrange(-2500, 2500)))
        dose = random.randrange(100, 900)
        log += RECORD.pack(x, y, 300 + layer, 310 + layer, dose, dose + random.randrange(-9, 9), layer, 1)
    return bytes(log)


def plan_bytes(plan: str, *, study: str, patient: str) -> bytes:
    """Return a DICOM file (PS3.10) with what identifies a plan: explicit VR, little endian."""
    meta = (
        _element(0x0002, 0x0001, "OB", b"\0\1")
        + _element(0x0002, 0x0002, "UI", RT_ION_PLAN)
        + _element(0x0002, 0x0003, "UI", plan)
        + _element(0x0002, 0x0010, "UI", EXPLICIT_VR_LITTLE_ENDIAN)
    )
    body = (
        _element(0x0008, 0x0016, "UI", RT_ION_PLAN)
        + _element(0x0008, 0x0018, "UI", plan)
        + _element(0x0008, 0x0060, "CS", "RTPLAN")
        + _element(0x0010, 0x0010, "PN", "DEMO^DEMO")
        + _element(0x0010, 0x0020, "LO", patient)
        + _element(0x0020, 0x000D, "UI", study)
        + _element(0x300A, 0x0002, "SH", "DEMO")
    )
    length = _element(0x0002, 0x0000, "UL", struct.pack("<I", len(meta)))
    return b"\0" * 128 + b"DICM" + length + meta + body


def _element(group: int, element: int, kind: str, value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode("ascii")
    if len(data) % 2:  # values have even length: UIDs are filled with NUL, texts with a space (PS3.5 6.2)
        data += b"\0" if kind == "UI" else b" "
    head = struct.pack("<HH2s", group, element, kind.encode())
    if kind == "OB":
        return head + struct.pack("<HI", 0, len(data)) + data
    return head + struct.pack("<H", len(data)) + data
