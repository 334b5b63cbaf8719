"""Texts that `nvidia-smi` prints, after public reports of several driver versions. UUIDs are made up."""

from __future__ import annotations

A = "GPU-004f693d-767b-b215-b4a9-a18af0ffd643"
B = "GPU-86fe97db-bf54-a056-4e8d-9b07e1a298e7"
C = "GPU-2090c509-a97a-e2fe-68f4-cf9e874c36f2"

# 535 and later: two data-centre cards, idle, MIG possible and off
TWO_A100 = f"""\
0, {A}, NVIDIA A100-SXM4-40GB, 40960, 5, 0, 31
1, {B}, NVIDIA A100-SXM4-40GB, 40960, 1423, 98, 67
"""
TWO_A100_MIG_COLUMN = f"""\
0, {A}, NVIDIA A100-SXM4-40GB, 40960, 5, 0, 31, Disabled
1, {B}, NVIDIA A100-SXM4-40GB, 40960, 1423, 98, 67, Disabled
"""
# 367 (2016): names without the maker, no MIG; the query that names it is refused with code 2
OLD_DRIVER_REFUSES = """\
Field "mig.mode.current" is not a valid field to query.

"""
OLD_DRIVER = f"""\
0, {A}, GeForce GTX TITAN X, 12206, 802, 0, 25
1, {B}, Tesla K80, 11439, 10032, [Not Supported], 54
"""
# a card for displays: what its driver doesn't tell is [N/A]; a chip with unified memory has no size of its own
CONSUMER = f"""\
0, {A}, NVIDIA GeForce RTX 3090, 24576, 418, 3, 41, [N/A]
1, {B}, NVIDIA GB10, [N/A], [N/A], 0, 38, [N/A]
"""
MIG = f"""\
0, {A}, NVIDIA A100-SXM4-80GB, 81920, 39, [N/A], 29, Enabled
1, {B}, NVIDIA A100-SXM4-80GB, 81920, 39, 0, 38, Disabled
"""
RENUMBERED = f"""\
0, {B}, NVIDIA A100-SXM4-40GB, 40960, 5, 0, 31, Disabled
1, {C}, NVIDIA A100-SXM4-40GB, 40960, 5, 0, 30, Disabled
2, {A}, NVIDIA A100-SXM4-40GB, 40960, 5, 0, 30, Disabled
"""
WITH_UNITS = f"0, {A}, Quadro P400, 1999 MiB, 12 MiB, 7 %, 44, [N/A]\n"
ONE_LOST = f"""\
0, {A}, NVIDIA A100-PCIE-40GB, 40960, 5, 0, 31, Disabled
1, {B}, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]
2, {C}, NVIDIA A100-PCIE-40GB, [Unknown Error], [Unknown Error], [Unknown Error], [Unknown Error], Disabled
"""
NEEDS_RESET = f"0, {A}, NVIDIA H100 80GB HBM3, [GPU requires reset], [GPU requires reset], [N/A], [N/A], Disabled\n"
SENSOR_FAILS = f"0, {A}, NVIDIA GeForce GTX 1080, 8119, 4, [Unknown Error], [Unknown Error], [N/A]\n"

NO_DEVICES = "No devices were found\n"  # code 6
NO_DRIVER = """\
NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.

"""  # code 9
MISMATCH = """\
Failed to initialize NVML: Driver/library version mismatch
NVML library version: 535.161
"""  # code 18: the driver was updated and the machine not started again
LOST = (
    "Unable to determine the device handle for GPU 0000:09:00.0: GPU is lost.  Reboot the system to recover this GPU\n"
)

INFOROM = "WARNING: infoROM is corrupted at gpu 0000:41:00.0\n"  # code 14; after the rows, on the same stream
NO_UUID = "2, [Unknown Error], NVIDIA A100-SXM4-40GB, [Unknown Error], [Unknown Error], [Unknown Error], [Unknown Error], [N/A]\n"

APPS = f"""\
{B}, 12033
{B}, 12034
{A}, 977
"""
APPS_NONE = "\n"
APPS_NONE_IN_WORDS = "No running processes found\n"
APPS_WITHOUT_IDS = f"{A}, [Insufficient Permissions]\n"
APPS_OLD_MIG = f"MIG-{A}/7/0, 4711\n"
APPS_MIG = "MIG-6a4a2a0c-2a3f-5c0e-8a47-08a0a2d3a4f1, 4711\n"
