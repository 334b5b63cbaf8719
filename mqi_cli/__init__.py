"""mqi's face for plugin authors: all that a plugin may import from the core, and nothing heavy until it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> the module that owns it; loaded when the name is first used, so that `import mqi_cli` costs nothing
_FACE = {
    "hookimpl": "hookspecs",
    "ConfigSection": "hookspecs",
    "HostType": "hookspecs",
    "RecordedEvent": "hookspecs",
    "Stage": "stage",
    "Step": "stage",
    "StepOptions": "stage",
    "StageContext": "stage",
    "Section": "stage",
    "Workflow": "stage",
    "Done": "stage",
    "Wait": "stage",
    "RetryLater": "errors",
    "GiveUp": "errors",
    "MqiError": "errors",
    "CaseError": "errors",
    "UsageError": "errors",
    "HostError": "errors",
    "HostUnreachable": "errors",
    "HostRefused": "errors",
    "HostFull": "errors",
    "HostFault": "errors",
    "NoShell": "errors",
    "describe_os_error": "errors",
    "CaseRef": "case",
    "KEY_PATTERN": "case",
    "CaseState": "case",
    "Patrol": "patrol",
    "PatrolContext": "patrol",
    "CaseSeen": "patrol",
    "CaseVanished": "patrol",
    "CaseCleared": "patrol",
    "HostSeen": "patrol",
    "GpuSeen": "patrol",
    "GpusSeen": "patrol",
    "Alert": "patrol",
    "SourceView": "patrol",
    "KnownCase": "patrol",
    "CaseView": "patrol",
    "Batch": "scheduler",
    "Call": "scheduler",
    "Queued": "scheduler",
    "QueueState": "scheduler",
    "Refusal": "scheduler",
    "Resources": "scheduler",
    "Scheduler": "scheduler",
    "Check": "check",
    "CheckContext": "check",
    "Verdict": "check",
    "Clock": "clock",
    "RemoteLayout": "layout",
    "key_of": "layout",
    "may_be_one": "layout",
    "tool_dir": "layout",
    "Earlier": "message",
    "GpuLease": "message",
    "MAX_PARTS": "message",
    "DOWNLOAD": "fetched",
    "Finished": "fetched",
    "Unfetched": "fetched",
    "fetching": "fetched",
    "has_seen_newest": "fetched",
    "is_for_effect": "fetched",
    "seen_attempts": "fetched",
    "unfetched": "fetched",
    "Completed": "hosts.base",
    "Files": "hosts.base",
    "Host": "hosts.base",
    "HostKey": "hosts.base",
    "KeyedHost": "hosts.base",
    "Process": "hosts.base",
    "Resident": "hosts.base",
    "ResidentHost": "hosts.base",
    "RemoteEntry": "hosts.base",
    "Copying": "hosts.base",
    "Sending": "hosts.base",
    "Receiving": "hosts.base",
    "Space": "hosts.base",
    "MAX_DEPTH": "manifest",
    "Entry": "manifest",
    "Manifest": "manifest",
    "ManifestFile": "manifest",
    "Unfit": "manifest",
    "build_manifest": "manifest",
    "fingerprint_directory": "manifest",
    "fingerprint_of": "manifest",
    "describe_unfit": "manifest",
    "empty_directories": "manifest",
    "describe_one": "manifest",
    "look_over": "manifest",
    "hash_file": "manifest",
    "parse_checksums": "manifest",
    "snapshot": "manifest",
    "survey": "manifest",
    "surveyed": "manifest",
    "unchanged": "manifest",
    "Duration": "config.values",
    "Size": "config.values",
    "LocalPath": "config.values",
    "Secret": "config.values",
    "ShellText": "config.values",
    "IGNORED_SUFFIXES": "sources",
    "case_directories": "sources",
    "check_local": "placeholders",
    "local_path": "placeholders",
    "Operator": "cli.operator",
    "Column": "cli.output",
    "show": "cli.output",
    "complain": "cli.output",
    "say": "cli.output",
    "tell_more": "cli.output",
    "age": "quantity",
    "size": "quantity",
    "progress": "cli.progress",
}

if TYPE_CHECKING:
    from mqi_cli.case import KEY_PATTERN as KEY_PATTERN
    from mqi_cli.case import CaseRef as CaseRef
    from mqi_cli.case import CaseState as CaseState
    from mqi_cli.check import Check as Check
    from mqi_cli.check import CheckContext as CheckContext
    from mqi_cli.check import Verdict as Verdict
    from mqi_cli.cli.operator import Operator as Operator
    from mqi_cli.cli.output import Column as Column
    from mqi_cli.cli.output import complain as complain
    from mqi_cli.cli.output import say as say
    from mqi_cli.cli.output import show as show
    from mqi_cli.cli.output import tell_more as tell_more
    from mqi_cli.cli.progress import progress as progress
    from mqi_cli.clock import Clock as Clock
    from mqi_cli.config.values import Duration as Duration
    from mqi_cli.config.values import LocalPath as LocalPath
    from mqi_cli.config.values import Secret as Secret
    from mqi_cli.config.values import ShellText as ShellText
    from mqi_cli.config.values import Size as Size
    from mqi_cli.errors import CaseError as CaseError
    from mqi_cli.errors import GiveUp as GiveUp
    from mqi_cli.errors import HostError as HostError
    from mqi_cli.errors import HostFault as HostFault
    from mqi_cli.errors import HostFull as HostFull
    from mqi_cli.errors import HostRefused as HostRefused
    from mqi_cli.errors import HostUnreachable as HostUnreachable
    from mqi_cli.errors import MqiError as MqiError
    from mqi_cli.errors import NoShell as NoShell
    from mqi_cli.errors import RetryLater as RetryLater
    from mqi_cli.errors import UsageError as UsageError
    from mqi_cli.errors import describe_os_error as describe_os_error
    from mqi_cli.fetched import DOWNLOAD as DOWNLOAD
    from mqi_cli.fetched import Finished as Finished
    from mqi_cli.fetched import Unfetched as Unfetched
    from mqi_cli.fetched import fetching as fetching
    from mqi_cli.fetched import has_seen_newest as has_seen_newest
    from mqi_cli.fetched import is_for_effect as is_for_effect
    from mqi_cli.fetched import seen_attempts as seen_attempts
    from mqi_cli.fetched import unfetched as unfetched
    from mqi_cli.hookspecs import ConfigSection as ConfigSection
    from mqi_cli.hookspecs import HostType as HostType
    from mqi_cli.hookspecs import RecordedEvent as RecordedEvent
    from mqi_cli.hookspecs import hookimpl as hookimpl
    from mqi_cli.hosts.base import Completed as Completed
    from mqi_cli.hosts.base import Copying as Copying
    from mqi_cli.hosts.base import Files as Files
    from mqi_cli.hosts.base import Host as Host
    from mqi_cli.hosts.base import HostKey as HostKey
    from mqi_cli.hosts.base import KeyedHost as KeyedHost
    from mqi_cli.hosts.base import Process as Process
    from mqi_cli.hosts.base import Receiving as Receiving
    from mqi_cli.hosts.base import RemoteEntry as RemoteEntry
    from mqi_cli.hosts.base import Resident as Resident
    from mqi_cli.hosts.base import ResidentHost as ResidentHost
    from mqi_cli.hosts.base import Sending as Sending
    from mqi_cli.hosts.base import Space as Space
    from mqi_cli.layout import RemoteLayout as RemoteLayout
    from mqi_cli.layout import key_of as key_of
    from mqi_cli.layout import may_be_one as may_be_one
    from mqi_cli.layout import tool_dir as tool_dir
    from mqi_cli.manifest import MAX_DEPTH as MAX_DEPTH
    from mqi_cli.manifest import Entry as Entry
    from mqi_cli.manifest import Manifest as Manifest
    from mqi_cli.manifest import ManifestFile as ManifestFile
    from mqi_cli.manifest import Unfit as Unfit
    from mqi_cli.manifest import build_manifest as build_manifest
    from mqi_cli.manifest import describe_one as describe_one
    from mqi_cli.manifest import describe_unfit as describe_unfit
    from mqi_cli.manifest import empty_directories as empty_directories
    from mqi_cli.manifest import fingerprint_directory as fingerprint_directory
    from mqi_cli.manifest import fingerprint_of as fingerprint_of
    from mqi_cli.manifest import hash_file as hash_file
    from mqi_cli.manifest import look_over as look_over
    from mqi_cli.manifest import parse_checksums as parse_checksums
    from mqi_cli.manifest import snapshot as snapshot
    from mqi_cli.manifest import survey as survey
    from mqi_cli.manifest import surveyed as surveyed
    from mqi_cli.manifest import unchanged as unchanged
    from mqi_cli.message import MAX_PARTS as MAX_PARTS
    from mqi_cli.message import Earlier as Earlier
    from mqi_cli.message import GpuLease as GpuLease
    from mqi_cli.patrol import Alert as Alert
    from mqi_cli.patrol import CaseCleared as CaseCleared
    from mqi_cli.patrol import CaseSeen as CaseSeen
    from mqi_cli.patrol import CaseVanished as CaseVanished
    from mqi_cli.patrol import CaseView as CaseView
    from mqi_cli.patrol import GpuSeen as GpuSeen
    from mqi_cli.patrol import GpusSeen as GpusSeen
    from mqi_cli.patrol import HostSeen as HostSeen
    from mqi_cli.patrol import KnownCase as KnownCase
    from mqi_cli.patrol import Patrol as Patrol
    from mqi_cli.patrol import PatrolContext as PatrolContext
    from mqi_cli.patrol import SourceView as SourceView
    from mqi_cli.placeholders import check_local as check_local
    from mqi_cli.placeholders import local_path as local_path
    from mqi_cli.quantity import age as age
    from mqi_cli.quantity import size as size
    from mqi_cli.scheduler import Batch as Batch
    from mqi_cli.scheduler import Call as Call
    from mqi_cli.scheduler import Queued as Queued
    from mqi_cli.scheduler import QueueState as QueueState
    from mqi_cli.scheduler import Refusal as Refusal
    from mqi_cli.scheduler import Resources as Resources
    from mqi_cli.scheduler import Scheduler as Scheduler
    from mqi_cli.sources import IGNORED_SUFFIXES as IGNORED_SUFFIXES
    from mqi_cli.sources import case_directories as case_directories
    from mqi_cli.stage import Done as Done
    from mqi_cli.stage import Section as Section
    from mqi_cli.stage import Stage as Stage
    from mqi_cli.stage import StageContext as StageContext
    from mqi_cli.stage import Step as Step
    from mqi_cli.stage import StepOptions as StepOptions
    from mqi_cli.stage import Wait as Wait
    from mqi_cli.stage import Workflow as Workflow


def __getattr__(name: str) -> Any:
    module = _FACE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACE])
