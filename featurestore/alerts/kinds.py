"""The sorts of problems, and how bad and how urgent they can be. Light: the command line shows them without importing anything."""

from typing import Literal

Kind = Literal["freshness", "quarantine", "gate", "drift", "parity", "landing", "stuck"]
Severity = Literal["WARN", "BREACH"]
Urgency = Literal["page", "ticket"]
SEVERITIES: tuple[Severity, ...] = ("WARN", "BREACH")
"""From bad to worse."""
