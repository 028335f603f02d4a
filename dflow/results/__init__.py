"""Results: under which key they are found again, in which form and where they are kept."""

from __future__ import annotations

from dflow.results.serializers import Serializer, register_serializer

__all__ = ["Serializer", "register_serializer"]
